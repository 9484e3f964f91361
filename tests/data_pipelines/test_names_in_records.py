"""Names in manifests lead nowhere else: nothing is read, shown or written outside the folder."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.doctor import __main__ as doctor
from data_pipelines.input import token_counts
from data_pipelines.manifests import clip_manifests, corpus_folders
from data_pipelines.mini import builder
from data_pipelines.records import record_files
from data_pipelines.records.schema import RecordError
from ltu_jax import demo
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import read_dataset

SECRET = "the password is swordfish"
ELSEWHERE = ["../../../outside", "../outside", "/outside", "a/../../../../outside", "..", "", "x\0",
             "C:\\outside", "..\\outside", "away", None, 7, ["a"]]  # fmt: skip


def _rename(directory, name):
    """Give the first training shard another name in the manifest; its files go along."""
    manifest = json.loads((directory / record_files.MANIFEST).read_text())
    shard = manifest["splits"]["train"]["shards"][0]
    old, shard["file"] = shard["file"], name
    (directory / record_files.MANIFEST).write_text(json.dumps(manifest))
    return old


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_shard_elsewhere_is_refused_by_all_who_read(records_copy, tokenizer, name, capsys):
    root = records_copy.parent
    (root / "outside").write_text(SECRET)
    (root / "outside.jsonl").write_text(f"{SECRET}\n{SECRET}\n")
    shutil.rmtree(records_copy / "tokens")
    old = _rename(records_copy, name)
    if name == "away":
        folder = record_files.shard_path(records_copy, "")
        (folder / old).rename(root / "moved")
        (folder / "away").symlink_to(root / "moved")
        (records_copy / record_files.INDEX / f"{old}.jsonl").rename(
            records_copy / record_files.INDEX / "away.jsonl"
        )
    before = sorted(root.rglob("*"))
    for use in (
        lambda: record_files.RecordStore(records_copy, split="train"),
        lambda: record_files.verify(records_copy),
        lambda: doctor.command([str(records_copy)]),
        lambda: token_counts.token_lengths(
            records_copy, split="train", tokenizer=tokenizer, show=False
        ),
    ):
        with pytest.raises(UserError) as caught:
            use()
        assert str(records_copy / record_files.MANIFEST) in str(caught.value)
        assert SECRET not in str(caught.value) + "".join(capsys.readouterr())
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("broken", [None, [], {"train": 3}, {"train": {"shards": {}}},
                                    {"train": {"shards": [3]}},
                                    {"train": {"shards": [{"file": "a"}]}}])  # fmt: skip
def test_a_manifest_that_is_none_is_named(records_copy, broken):
    manifest = json.loads((records_copy / record_files.MANIFEST).read_text()) | {"splits": broken}
    (records_copy / record_files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        record_files.RecordStore(records_copy, split="train")


def test_an_index_in_arrays_that_names_another_shard_is_made_again(records_copy):
    wanted = record_files.RecordStore(records_copy, split="train").entries
    for path in (records_copy / record_files.INDEX).glob("*.npz"):
        with np.load(path) as data:
            arrays = dict(data)
        arrays["shard_names"] = np.frombuffer(b'["../../../outside"]', np.uint8)
        np.savez(path, **arrays)
    found = record_files.RecordStore(records_copy, split="train").entries
    assert found.shard_names == wanted.shard_names


@pytest.fixture
def corpus(tmp_path):
    """A corpus folder whose one clip lies elsewhere."""

    def make(audio):
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        clip = {"clip_id": "c", "split": "test", "audio": audio, "kind": "joint", "seconds": 1.0,
                "spoken_text": "yes", "dataset": "d", "sample_rate": 16000, "tags": [],
                "synthetic": True, "labels": {}}  # fmt: skip
        (folder / "clips.jsonl").write_text(json.dumps(clip) + "\n")
        for split in ("train", "val", "test"):
            (folder / f"open_asqa_{split}.json").write_text("[]")
        item = {"item_id": "i", "row": "sound", "clip_id": "c", "question": "?",
                "answer": "a dog", "choices": ["dog", "cat"]}  # fmt: skip
        (folder / "test_items.jsonl").write_text(json.dumps(item) + "\n")
        return folder

    return make


@pytest.mark.parametrize("audio", ["../secret.wav", "/secret.wav", "C:\\x", "link"])
def test_a_clip_of_a_corpus_lies_in_it(corpus, audio, tmp_path, capsys):
    (tmp_path / "secret.wav").write_text(SECRET)
    folder = corpus(audio)
    (folder / "link").symlink_to(tmp_path / "secret.wav")
    for use in (
        lambda: list(corpus_folders.read_corpus(folder, split="test")),
        lambda: demo.held_out_clip(folder),
        lambda: read_dataset(folder, name="mini", split="test"),
    ):
        with pytest.raises(UserError, match=r"clips\.jsonl") as caught:
            use()
        assert repr(audio) in str(caught.value)
    assert doctor.command([str(folder)]) == 1
    shown = "".join(capsys.readouterr())
    assert repr(audio) in shown and SECRET not in shown


def test_the_hashes_of_a_corpus_are_of_its_files(tmp_path):
    manifest = builder.corpus.identity(seed=0, size="mini") | {"sha256": {"../x": "0"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"'\.\./x'"):
        builder.is_valid(tmp_path, seed=0, size="mini")


def test_a_row_of_ones_own_names_a_file_below_or_a_whole_path(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "out.wav").touch()
    (tmp_path / "clips" / "link.wav").symlink_to(tmp_path / "out.wav")
    find = clip_manifests.resolve_audio
    for audio_id in ("link", "link.wav", str(tmp_path / "out"), f"{tmp_path}/clips/link.wav"):
        assert find(audio_id, root=tmp_path / "clips", where="row 1").is_file()
    for audio_id in ("../out.wav", "x/../../out.wav", "..", "a\0b", "C:\\out.wav"):
        with pytest.raises(RecordError, match="row 1: field 'audio_id'"):
            find(audio_id, root=tmp_path / "clips", where="row 1")


@pytest.mark.parametrize("audio", ["../out.wav", "a/../../out.wav"])
def test_a_question_of_ones_own_too(tmp_path, audio):
    line = {"audio": audio, "question": "?", "answer": "a", "task": "caption"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"mine\.jsonl:1 .*whole path"):
        read_dataset(tmp_path / "mine.jsonl", name="jsonl", split=None)
    (tmp_path / "mine.jsonl").write_text(json.dumps({**line, "audio": "/data/out.wav"}) + "\n")
    found = read_dataset(tmp_path / "mine.jsonl", name="jsonl", split=None)
    assert [str(clip.audio) for clip in found.clips.values()] == ["/data/out.wav"]
