"""Questions about the clips of a corpus folder that stand in a file of rows of their own."""

import json

import numpy as np
import pytest
import soundfile

from data_pipelines import write_records
from data_pipelines.manifests import corpus_folders
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError

COMMON = {"spoken_text": "", "dataset": "real", "sample_rate": 16_000, "seconds": 1.0,
          "synthetic": False, "source": {"license": "L"}}  # fmt: skip


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    clips = []
    for name, split in (("dog", "train"), ("cat", "train"), ("cow", "val")):
        soundfile.write(folder / f"audio/{name}.flac", np.zeros(16_000), 16_000)
        clip = {"clip_id": name, "split": split, "audio": f"audio/{name}.flac", "tags": [name]}
        clips.append(COMMON | clip)
    (folder / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    for split in ("train", "val", "test"):
        (folder / f"open_asqa_{split}.json").write_text("[]")
    (folder / "tag_labels.json").write_text(json.dumps(["dog", "cat", "cow"]))
    return folder


def row(audio, answer, **changed):
    return {"instruction": "What?", "input": "woof", "audio_id": str(audio), "dataset": "windows",
            "task": "cla_label", "output": answer} | changed  # fmt: skip


def written(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_rows_of_another_file_are_the_pairs_of_the_clips_that_they_name(corpus, tmp_path):
    rows = written(
        tmp_path,
        [
            row(corpus / "audio/dog.flac", "Labels: Dog"),
            row("audio/cow.flac", "Labels: Cow", input="", split="val"),
            row(corpus / "audio/dog.flac", "A dog is heard.", task="cla_heard"),
        ],
    )
    out = tmp_path / "records"
    write_records.command(
        ["--corpus", str(corpus), "--questions", str(rows), "--out", str(out), "--no-tokens"]
    )
    clips = {
        clip.clip_id: clip
        for split in ("train", "val")
        for clip in (lambda store: map(store.read, range(len(store))))(
            RecordStore(out, split=split)
        )
    }
    assert [pair.output for pair in clips["dog"].pairs] == ["Labels: Dog", "A dog is heard."]
    assert (clips["dog"].spoken_text, clips["dog"].dataset) == ("woof", "windows")
    assert clips["dog"].tags == ("dog",) and clips["cow"].pairs[0].output == "Labels: Cow"
    assert not clips["cat"].pairs and clips["cat"].dataset == "real"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"audio_id": "audio/hen.flac"}, "hen.flac is no clip of"),
        ({"split": "val"}, "'val', and the clip is in 'train'"),
        ({"output": 3}, "output"),
    ],
)
def test_rows_about_something_else_are_an_error(corpus, tmp_path, changed, told):
    rows = written(tmp_path, [row("audio/dog.flac", "Labels: Dog") | changed])
    with pytest.raises(RecordError, match="rows.jsonl, row 1") as caught:
        questions = corpus_folders.corpus_questions(corpus, rows)
        list(corpus_folders.read_corpus(corpus, split="train", questions=questions))
    assert told in str(caught.value)


def test_questions_need_a_corpus(tmp_path):
    rows = written(tmp_path, [row("a.flac", "b")])
    with pytest.raises(UserError, match="--questions"):
        write_records.command(
            ["--json", str(rows), "--questions", str(rows), "--out", str(tmp_path / "records")]
        )
