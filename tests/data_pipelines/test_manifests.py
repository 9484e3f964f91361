"""The manifest reader: official JSON streamed at any chunk size, JSONL, audio paths, and every
error.
"""

import json

import numpy as np
import pytest
import soundfile

from data_pipelines.manifests import clip_manifests, corpus_folders, official_rows
from data_pipelines.manifests.audio_finder import AudioFinder
from data_pipelines.records import schema

ROW = {
    "instruction": "What is it?",
    "input": "",
    "audio_id": "sub/a",
    "dataset": "mine",
    "task": "cla_sound",
    "output": 'A [bell], "so" {it} seems.',
}


@pytest.fixture
def audio_root(tmp_path):
    for name, rate in (("sub/a.wav", 8000), ("b.flac", 16000)):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(rate // 2, np.float32), rate)
    return tmp_path / "audio"


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def read_rows(path):
    """All rows; raises the error of the first that cannot be used."""
    rows = []
    for row in official_rows.rows_or_errors(path):
        if isinstance(row, schema.RecordError):
            raise row
        rows.append(row)
    return rows


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_streamed_list_equals_json_loads(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(official_rows, "_CHUNK", chunk)
    rows = [ROW | {"output": f"answer {index} \u00e9"} for index in range(5)]
    path = write(tmp_path / "m.json", json.dumps(rows, indent=indent) + "\n")
    found = read_rows(path)
    assert [row.values for row in found] == rows
    assert [row.number for row in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}", "row 1: field 'instruction' is missing"),
        ("{}", "not a JSON list"),
        ("", "not a JSON list"),
        ("[" + json.dumps(ROW), "not closed by ']'"),
        ("[" + json.dumps(ROW) + ",", "row 2: not valid JSON"),
        ("[" + json.dumps(ROW) + json.dumps(ROW) + "]", "row 2: not valid JSON: expected ','"),
        ("[" + json.dumps(ROW)[:-5], "row 1: not valid JSON"),
        ("[3]", "row 1: is int"),
    ],
)
def test_a_broken_list_is_named(tmp_path, monkeypatch, chunk, text, message):
    monkeypatch.setattr(official_rows, "_CHUNK", chunk)
    path = write(tmp_path / "m.json", text)
    with pytest.raises(schema.RecordError, match="m.json") as error:
        read_rows(path)
    assert message in str(error.value)


def test_an_empty_list_has_no_rows(tmp_path):
    assert read_rows(write(tmp_path / "m.json", "[ ]")) == []


@pytest.mark.parametrize("field", schema.OFFICIAL_FIELDS)
def test_a_missing_field_names_file_row_and_field(tmp_path, field):
    bad = {name: value for name, value in ROW.items() if name != field}
    path = write(tmp_path / "m.jsonl", json.dumps(ROW) + "\n\n" + json.dumps(bad) + "\n")
    with pytest.raises(schema.RecordError, match=rf"m\.jsonl, row 3: field '{field}' is missing"):
        read_rows(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": ""}, "field 'output' is empty"),
        ({"output": None}, "field 'output' is None: give text"),
        ({"input": 3}, "field 'input' is 3: give text"),
        ({"anwser": "x"}, "unknown field 'anwser'"),
        ({"split": "dev"}, "field 'split' is 'dev'"),
        ({"tags": "bell"}, "field 'tags' is 'bell'"),
    ],
)
def test_a_bad_value_is_named(tmp_path, change, message):
    path = write(tmp_path / "m.json", [ROW, ROW | change])
    with pytest.raises(schema.RecordError, match=r"m\.json, row 2: ") as error:
        read_rows(path)
    assert message in str(error.value)


def test_a_missing_manifest_and_a_broken_line_are_named(tmp_path):
    with pytest.raises(schema.RecordError, match=r"none\.json does not exist"):
        read_rows(tmp_path / "none.json")
    path = write(tmp_path / "m.jsonl", json.dumps(ROW) + "\n{oops\n")
    with pytest.raises(schema.RecordError, match=r"m\.jsonl, row 2: not valid JSON"):
        read_rows(path)


def test_rows_of_a_clip_are_grouped_and_audio_is_found(tmp_path, audio_root):
    rows = [
        ROW,
        ROW | {"audio_id": "b.flac", "split": "val", "tags": ["bell"]},
        ROW | {"instruction": "Describe it.", "task": "open_describe"},
    ]
    first, second = clip_manifests.read_clips(
        write(tmp_path / "m.json", rows), audio=AudioFinder(audio_root)
    )
    assert (first.clip_id, first.sample_rate, first.seconds) == ("sub/a", 8000, 0.5)
    assert first.audio == audio_root / "sub/a.wav"
    assert [pair.instruction for pair in first.pairs] == ["What is it?", "Describe it."]
    assert [pair.closed_ended for pair in first.pairs] == [True, False]
    assert (second.split, second.tags, second.sample_rate) == ("val", ("bell",), 16000)


def test_audio_of_two_datasets_makes_a_clip_in_each(tmp_path, audio_root):
    rows = [
        ROW | {"dataset": "as_20k"},
        ROW | {"audio_id": "b.flac"},
        ROW | {"dataset": "audioset", "input": "Hello.", "task": "open-ended question"},
        ROW | {"dataset": "as_20k", "instruction": "And where?"},
    ]
    path = write(tmp_path / "m.json", rows)
    alone, other, joint = clip_manifests.read_clips(path, audio=AudioFinder(audio_root))
    assert [clip.clip_id for clip in (alone, other, joint)] == [
        "sub/a@as_20k",
        "b.flac",
        "sub/a@audioset",
    ]
    assert (alone.dataset, joint.dataset) == ("as_20k", "audioset")
    assert [pair.instruction for pair in alone.pairs] == ["What is it?", "And where?"]
    assert (alone.spoken_text, joint.spoken_text) == ("", "Hello.")
    assert alone.audio == joint.audio == audio_root / "sub/a.wav"


def test_missing_unreadable_and_contradicting_clips_are_named(tmp_path, audio_root):
    path = write(tmp_path / "m.json", [ROW | {"audio_id": "c"}])
    with pytest.raises(
        schema.RecordError, match=r"row 1: field 'audio_id' is 'c': no file .*\.flac"
    ):
        list(clip_manifests.read_clips(path, audio=AudioFinder(audio_root)))
    (audio_root / "text.wav").write_text("this is no audio")
    path = write(tmp_path / "m.json", [ROW | {"audio_id": "text.wav"}])
    with pytest.raises(schema.RecordError, match=r"row 1: .*text\.wav: is text, not audio"):
        list(clip_manifests.read_clips(path, audio=AudioFinder(audio_root)))
    path = write(tmp_path / "m.json", [ROW, ROW | {"input": "Hello."}])
    with pytest.raises(schema.RecordError, match=r"row 2: field 'input' is 'Hello.', but row 1"):
        list(clip_manifests.read_clips(path, audio=AudioFinder(audio_root)))


def clip(clip_id, split, *, seed, recording="", sentence=""):
    return {
        "clip_id": clip_id,
        "split": split,
        "source": {"seed": seed, "recording": recording},
        "labels": {"truth_text": sentence} if sentence else {},
    }


def test_disjoint_splits_are_counted():
    clips = [
        clip("a", "train", seed=1, sentence="One."),
        clip("b", "train", seed=2, recording="cow", sentence="One."),
        clip("c", "test", seed=3, recording="dog"),
    ]
    counts = corpus_folders.check_disjoint(clips)
    assert counts["train"] == {"seeds": 2, "recordings": 1, "sentences": 1}
    assert counts["test"] == {"seeds": 1, "recordings": 1, "sentences": 0}


@pytest.mark.parametrize(
    ("shared", "kind"),
    [
        ({"seed": 1}, "seeds"),
        ({"seed": 2, "recording": "cow"}, "recordings"),
        ({"seed": 2, "sentence": "One."}, "sentences"),
    ],
)
def test_a_value_in_two_splits_is_an_error(shared, kind):
    clips = [
        clip("a", "train", seed=1, recording="cow", sentence="One."),
        clip("b", "test", **shared),
    ]
    with pytest.raises(schema.RecordError, match=rf"clip 'b': {kind} .* is in train and in test"):
        corpus_folders.check_disjoint(clips)


def test_a_folder_without_corpus_says_how_to_build_one(tmp_path):
    with pytest.raises(schema.RecordError, match="python -m data_pipelines.build_mini"):
        list(corpus_folders.read_corpus(tmp_path, split="train"))
