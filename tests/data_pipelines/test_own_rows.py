"""A person's own rows: what is wrong with them in one error, and the split by recording."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.manifests import own_rows
from ltu_jax.core.errors import UserError

QUESTION = "What do you hear?"


def write(folder: Path, rows: list, *, clips: int = 40) -> Path:
    (folder / "clips").mkdir()
    for number in range(clips):
        soundfile.write(folder / "clips" / f"{number}.wav", np.zeros(160), 16000)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "my.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "my.jsonl"


def read(file: Path, share: float = 0.2) -> list[own_rows.OwnRow]:
    return own_rows.read(file, folder=file.parent / "clips", validation_share=share)


def row(number: int, answer: str, **more) -> dict:
    return {"audio": f"{number}.wav", "question": QUESTION, "answer": answer, **more}


def test_each_class_has_clips_on_both_sides_and_a_recording_is_on_one(tmp_path):
    rows = [row(n, "A dog.", cluster=f"d{n // 2}") for n in range(20)]
    rows += [row(n, "the cat", cluster=f"c{n}") for n in range(20, 25)]
    rows += [row(25, "An owl!"), row(26, "An  eel.")]
    rows += [{**row(n, "Nobody said the same before: " + str(n)), "question": "Say more."}
             for n in range(4)]  # fmt: skip
    found = read(write(tmp_path, rows))
    assert [one.label for one in found[:27:6]] == ["dog", "dog", "dog", "dog", "cat"]
    assert {one.label for one in found[27:]} == {None}
    sides = {side: {one.cluster for one in found if one.split == side} for side in ("train", "val")}
    assert not sides["train"] & sides["val"]
    held = own_rows.counts(found)["val"]
    # 10 recordings of dogs, 5 of cats, one each of owl and eel, which are only learnt.
    assert held["dog"] == 4 and held["cat"] == 1 and not held["owl"] and not held["eel"]
    assert read(tmp_path / "my.jsonl") == found
    asked = own_rows.questions(found, spoken={one.audio: "" for one in found})
    assert len(asked) == 5
    assert asked[0]["labels"] == ["dog", "cat", "owl", "eel"]
    assert own_rows.official(found[0], spoken_text="hm")["task"] == "cla_own"
    assert own_rows.official(found[-1], spoken_text="")["task"] == "open_own"


def test_a_split_that_is_given_is_kept(tmp_path):
    rows = [row(0, "A dog.", split="train"), row(1, "A dog.", split="val"),
            row(2, "A cat.", split="train")]  # fmt: skip
    assert [one.split for one in read(write(tmp_path, rows))] == ["train", "val", "train"]


GOOD = [row(n, answer) for n, answer in enumerate(["A dog.", "A dog.", "A cat."])]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*GOOD, "{"], [r"my.jsonl:4"]),
        ([*GOOD, row(3, " ")], ["my.jsonl:4", "answer is ' '"]),
        ([*GOOD, {"audio": "3.wav", "question": QUESTION}], ["answer is None"]),
        ([*GOOD, row(77, "A dog.")], ["my.jsonl:4", "77.wav"]),
        ([*GOOD, row(3, "A dog.", label="x")], ["unknown key 'label'"]),
        ([*GOOD, row(3, "A dog.", split="test")], ["split is 'test'"]),
        ([*GOOD, row(3, "A dog.", split="val")], ["every row a split, or none"]),
        ([*GOOD, row(3, "A dog.", spoken_text=3)], ["spoken_text is 3"]),
        ([row(0, "A dog."), row(1, "A cat.")], ["several clips for each answer"]),
        ([row(0, "A dog."), row(1, "A dog.")], ["several clips for each answer"]),
        ([row(n, "A dog.", cluster="one") for n in range(3)] + [row(3, "A cat.")],
         ["several clips for each answer"]),
        ([row(0, "A dog.", split="train", cluster="x"), row(1, "A dog.", split="val", cluster="x"),
          row(2, "A cat.", split="train"), row(3, "A cat.", split="val")],
         ["x is in train and in val"]),
        ([row(0, "A dog.", split="train"), row(1, "A dog.", split="train"),
          row(2, "A cat.", split="val")], ["no class is both in train and in val"]),
        ([row(88, "A dog."), row(0, ""), "[]"], ["88.wav", "answer is ''", "my.jsonl:3"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_error(tmp_path, rows, words):
    file = write(tmp_path, rows, clips=5)
    with pytest.raises(UserError) as error:
        read(file)
    for word in words:
        assert word in str(error.value)


def test_a_clip_that_cannot_be_read_and_a_missing_folder(tmp_path):
    file = write(tmp_path, [*GOOD, row(3, "A dog.")], clips=4)
    (tmp_path / "clips" / "3.wav").write_bytes(b"no sound at all")
    with pytest.raises(UserError, match=r"3\.wav"):
        read(file)
    with pytest.raises(UserError, match="is no folder"):
        own_rows.read(file, folder=tmp_path / "none", validation_share=0.2)
