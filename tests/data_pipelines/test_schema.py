"""The record specification: good clips pass, every bad field is named with its value and a fix."""

import dataclasses

import pytest

from data_pipelines.records import schema

PAIR = schema.QAPair(
    pair_id="cla_sound-0",
    instruction="What is it?",
    output="Siren.",
    task="cla_sound",
    closed_ended=True,
)
CLIP = schema.AnnotatedClip(
    clip_id="clip-1",
    audio=b"fLaC",
    sample_rate=16000,
    seconds=1.5,
    spoken_text="",
    dataset="mini",
    split="train",
    synthetic=True,
    tags=("siren",),
    pairs=(PAIR,),
)


def test_a_good_clip_is_returned_unchanged():
    assert schema.validate(CLIP) is CLIP


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clip_id": " "}, "clip_id"),
        ({"audio": b""}, "audio"),
        ({"audio": "clip.wav"}, "audio"),
        ({"sample_rate": 16000.0}, "sample_rate"),
        ({"sample_rate": True}, "sample_rate"),
        ({"sample_rate": 16}, "sample_rate"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"spoken_text": None}, "spoken_text"),
        ({"dataset": ""}, "dataset"),
        ({"split": "dev"}, "split"),
        ({"synthetic": 1}, "synthetic"),
        ({"tags": ["siren"]}, "tags"),
        ({"tags": ("siren", "siren")}, "tags"),
        ({"tags": ("",)}, "tags"),
        ({"pairs": [PAIR]}, "pairs"),
        ({"pairs": (PAIR, PAIR)}, "pairs.pair_id"),
        ({"pairs": (dataclasses.replace(PAIR, output=""),)}, "output"),
        ({"pairs": (dataclasses.replace(PAIR, instruction=3),)}, "instruction"),
        ({"pairs": (dataclasses.replace(PAIR, closed_ended="yes"),)}, "closed_ended"),
    ],
)
def test_a_bad_field_is_named(change, field):
    with pytest.raises(schema.RecordError, match=f"clip.*field '{field}' is") as error:
        schema.validate(dataclasses.replace(CLIP, **change))
    assert isinstance(error.value, ValueError)


def test_where_replaces_the_clip_id_in_the_message():
    with pytest.raises(schema.RecordError, match=r"^my\.json, row 7: field 'split'"):
        schema.validate(dataclasses.replace(CLIP, split="dev"), where="my.json, row 7")


def test_official_record_has_the_official_keys_in_order():
    clip = dataclasses.replace(CLIP, spoken_text="Hello.")
    record = schema.official(clip, PAIR, audio_id="audio/x.flac")
    assert list(record) == ["instruction", "input", "audio_id", "dataset", "task", "output"]
    assert record["input"] == "Hello."
    assert record["output"] == "Siren."


def test_audio_bytes_reads_a_path_and_names_a_missing_one(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(b"abc")
    assert schema.audio_bytes(dataclasses.replace(CLIP, audio=path)) == b"abc"
    with pytest.raises(schema.RecordError, match=r"clip-1.*cannot read .*b\.flac"):
        schema.audio_bytes(dataclasses.replace(CLIP, audio=tmp_path / "b.flac"))
