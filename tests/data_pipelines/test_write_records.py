"""Records hold what the clips held, readable by tfds and TensorFlow; bad clips are named."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import soundfile
import soxr

from data_pipelines.records import record_files
from data_pipelines.records.beam_runner import BeamRunner
from data_pipelines.records.clip_lines import from_line, to_line
from data_pipelines.records.quarantine import Quarantine
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.schema import RecordError
from data_pipelines.records.shard_writer import to_flac
from data_pipelines.records.summary import table
from data_pipelines.records.write import write_records
from data_pipelines.write_records import command
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from tests.support import records_corpus


def _write(clips, out, **options):
    return write_records(clips, out, tag_labels=records_corpus.LABELS, shards=2, **options)


def test_every_field_of_every_clip_comes_back(clips, records_dir):
    for split in ("train", "val"):
        store = RecordStore(records_dir, split=split)
        found = {record.clip_id: record for record in map(store.read, range(len(store)))}
        wanted = {clip.clip_id: clip for clip in clips if clip.split == split}
        assert set(found) == set(wanted)
        for name, record in found.items():
            assert record.audio == wanted[name].audio.read_bytes()
            assert record.seconds == pytest.approx(wanted[name].seconds)
            for field in dataclasses.fields(wanted[name]):
                if field.name not in ("audio", "seconds"):
                    assert getattr(record, field.name) == getattr(wanted[name], field.name)


def test_records_of_an_older_version_may_be_replaced_and_not_what_lies_among_them(records_copy):
    outputs.claim(records_copy, record_files.MAKER)
    (records_copy / outputs.MARKER).unlink()
    assert list(records_copy.glob("tokens/*/*.npz"))
    outputs.claim(records_copy, record_files.MAKER)
    (records_copy / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds 'thesis\.tex' besides"):
        outputs.claim(records_copy, record_files.MAKER)


def test_tfds_and_tensorflow_read_the_shards(clips, records_dir):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = records_dir / record_files.BUILDER / record_files.VERSION
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.splits["train"].num_examples == 7
    examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
    found = {example["clip_id"].decode(): example for example in examples}
    clip = clips[3]
    example = found[clip.clip_id]
    assert example["audio"] == clip.audio.read_bytes()
    assert [text.decode() for text in example["pairs"]["output"]] == [p.output for p in clip.pairs]
    assert list(example["pairs"]["closed_ended"]) == [p.closed_ended for p in clip.pairs]
    # TensorFlow checks the frames' own CRCs; the index must name the same bytes.
    for path in sorted(folder.glob("*.tfrecord-*")):
        payloads = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        whole = path.read_bytes()
        lines = (records_dir / record_files.INDEX / f"{path.name}.jsonl").read_text().splitlines()
        index = [json.loads(line) for line in lines[1:]]
        assert [whole[e["offset"] : e["offset"] + e["length"]] for e in index] == payloads


def test_the_manifest_counts_and_names_the_bytes(clips, records_dir):
    manifest = record_files.read_manifest(records_dir)
    train, val = manifest["splits"]["train"], manifest["splits"]["val"]
    pairs = [pair for clip in clips if clip.split == "train" for pair in clip.pairs]
    assert (train["clips"], train["pairs"]) == (7, len(pairs))
    assert train["closed_ended_pairs"] == sum(pair.closed_ended for pair in pairs)
    assert train["synthetic_clips"] == 2
    assert train["datasets"] == {"mini_sound": 4, "mini_speech": 3}
    assert sum(train["tasks"].values()) == len(pairs)
    assert len(train["shards"]) == 2
    for shard in train["shards"] + val["shards"]:
        content = record_files.shard_path(records_dir, shard["file"]).read_bytes()
        assert shard["bytes"] == len(content)
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
    # What the 10 s window does not hear is said.
    assert (val["clips_longer_than_window"], val["seconds_beyond_window"]) == (2, 1.0)
    assert "2 clips, 1 s unheard" in table(manifest)


def test_valid_output_is_kept_and_any_other_is_written_again(clips, tmp_path):
    out = tmp_path / "out"
    few = clips[:2] + clips[-1:]
    first = _write(few, out)
    written = (out / record_files.MANIFEST).stat().st_mtime_ns
    assert _write(few, out) == first
    assert (out / record_files.MANIFEST).stat().st_mtime_ns == written
    changed = [dataclasses.replace(few[0], spoken_text="other words"), *few[1:]]
    second = _write(changed, out)
    assert second["source_fingerprint"] != first["source_fingerprint"]
    shard = record_files.shard_path(out, second["splits"]["train"]["shards"][0]["file"])
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{shard.name}: its SHA-256 differs"):
        record_files.verify(out)
    _write(changed, out)
    record_files.verify(out)
    assert not list(tmp_path.glob(".tmp*"))


def test_another_beam_runner_writes_the_same_records(clips, records_dir, tmp_path):
    runner = "apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner"
    _write(clips, tmp_path / "out", runner=BeamRunner(name=runner))
    ours, theirs = (
        {e.clip_id: (e.shard, e.length) for e in RecordStore(place, split="train").entries}
        for place in (tmp_path / "out", records_dir)
    )
    assert ours == theirs


def test_other_audio_becomes_16_khz_mono_flac(tmp_path):
    stereo = np.stack([records_corpus.samples(n, seconds=0.3) for n in (1, 2)], axis=1)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, stereo, 44100, subtype="FLOAT")
    flac, seconds = to_flac(path.read_bytes(), where="clip")
    assert flac[:4] == b"fLaC"
    (tmp_path / "out.flac").write_bytes(flac)
    decoded, rate = soundfile.read(tmp_path / "out.flac", dtype="float32")
    truth = soxr.resample(stereo.mean(axis=1), 44100, 16000)
    assert rate == 16000 and seconds == pytest.approx(len(decoded) / 16000)
    np.testing.assert_allclose(decoded, truth, atol=2**-14)  # 16 bits


def test_a_staged_line_is_the_clip(clips):
    for clip in clips:
        assert from_line(to_line(clip)) == dataclasses.replace(clip, audio=clip.audio.resolve())


def test_unreadable_audio_is_left_out_and_reported(clips, tmp_path, capsys):
    path = tmp_path / "cut.flac"
    path.write_bytes(clips[1].audio.read_bytes()[:2000])
    bad = [
        dataclasses.replace(clips[1], audio=path),
        dataclasses.replace(clips[2], audio=tmp_path / "gone.flac"),
    ]
    others = [clips[0], *clips[3:]]
    out = tmp_path / "out"
    manifest = _write([*bad, *others], out, quarantine=Quarantine(max_share=0.25))
    assert manifest["quarantined"] == 2 and "2 clips left out" in table(manifest)
    cut, gone = sorted(
        map(json.loads, (out / "quarantine.jsonl").open()), key=lambda line: line["clip_id"]
    )
    assert (cut["clip_id"], cut["audio"], cut["pairs"]) == ("train_1", str(path), 2)
    assert "clip 'train_1'" in cut["reason"] and "damaged after" in cut["reason"]
    assert gone["clip_id"] == "train_2" and "cannot read" in gone["reason"]
    # The others are what they were: none of the written samples was made up.
    found = {}
    for split in ("train", "val"):
        store = RecordStore(out, split=split)
        found |= {record.clip_id: record for record in map(store.read, range(len(store)))}
    assert set(found) == {clip.clip_id for clip in others}
    assert all(found[clip.clip_id].audio == clip.audio.read_bytes() for clip in others)
    # Kept while nothing changes, written again once the audio is repaired.
    written = (out / record_files.MANIFEST).stat().st_mtime_ns
    _write([*bad, *others], out, quarantine=Quarantine(max_share=0.25))
    assert (out / record_files.MANIFEST).stat().st_mtime_ns == written
    path.write_bytes(clips[1].audio.read_bytes())
    assert _write([*bad, *others], out, quarantine=Quarantine(max_share=0.25))["quarantined"] == 1
    with pytest.raises(UserError, match="1 of 9 clips cannot be read and at most 1.00% may be"):
        _write([*bad, *others], tmp_path / "other")


def test_too_much_unreadable_audio_is_one_error_and_nothing_is_written(clips, tmp_path):
    bad = []
    for number, content in enumerate((b"this is not audio" * 9, clips[0].audio.read_bytes()[:99])):
        path = tmp_path / f"bad{number}.flac"
        path.write_bytes(content)
        bad.append(dataclasses.replace(clips[number], audio=path))
    with pytest.raises(UserError) as error:
        _write([*bad, *clips[2:]], tmp_path / "out")
    message = str(error.value)
    assert (
        "clip 'train_0'" in message and "bad0.flac" in message and "is text, not audio" in message
    )
    assert "and 1 more clips" in message
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".tmp*"))
    # All clips of a split bad: still the clip's error, not the runner's.
    with pytest.raises(UserError, match="clip 'train_0'"):
        _write(bad[:1], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": ("howl",)}, "clip 'train_1': field 'tags': 'howl' is not in tag_labels.json"),
        ({"clip_id": "train_0"}, "clip 'train_0': field 'clip_id' is used twice"),
        ({"dataset": ""}, "clip 'train_1': field 'dataset' is ''"),
        ({"split": "dev"}, "clip 'train_1': field 'split' is 'dev'"),
    ],
)
def test_a_clip_that_breaks_the_rules_is_named(clips, tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        _write([clips[0], dataclasses.replace(clips[1], **change)], tmp_path / "out")


def test_missing_audio_and_an_empty_answer_are_named(clips, tmp_path):
    gone = dataclasses.replace(clips[1], audio=tmp_path / "gone.flac")
    with pytest.raises(UserError, match="clip 'train_1': field 'audio': cannot read .*gone.flac"):
        _write([gone], tmp_path / "out")
    silent = dataclasses.replace(clips[0].pairs[0], output=" ")
    with pytest.raises(RecordError, match="pair 'p0': field 'output' is ' '"):
        _write([dataclasses.replace(clips[0], pairs=(silent,))], tmp_path / "out")
    with pytest.raises(UserError, match="no clips"):
        _write([], tmp_path / "out")


def test_the_command_takes_a_users_own_json_and_audio(tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    row = {"input": "", "dataset": "mine", "task": "open_describe", "output": "A tone."}
    rows = []
    for number in range(3):
        soundfile.write(
            tmp_path / "audio" / f"{number}.wav", records_corpus.samples(number, seconds=1), 22050
        )
        for question in ("What is it?", "Describe it."):
            rows.append(row | {"audio_id": f"{number}.wav", "instruction": question})
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    arguments = ["--json", str(manifest), "--audio-root", str(tmp_path / "audio")]
    arguments += ["--out", str(tmp_path / "out")]
    assert command([*arguments, "--shards", "2"]) == 0
    assert "train" in capsys.readouterr().out
    store = RecordStore(tmp_path / "out", split="train")
    assert sorted(e.clip_id for e in store.entries) == ["0.wav", "1.wav", "2.wav"]
    assert [pair.instruction for pair in store.read(0).pairs] == ["What is it?", "Describe it."]
    del rows[3]["output"]
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(UserError, match="mine.jsonl, row 4: field 'output' is missing"):
        command(arguments)
