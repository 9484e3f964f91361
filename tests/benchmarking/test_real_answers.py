"""Figures of a model's answers beside its tag head: of recordings, and against fixed bars."""

import json

import pytest

from benchmarks import real_answers
from ltu_jax.core.errors import UserError

DOG, CAT = "Dog / wolf", "Cat"
ROWS = [  # the first recording is in three files, of which one is named rightly
    {"group": DOG, "cluster": "a", "joint": DOG, "head": DOG},
    {"group": DOG, "cluster": "a", "joint": CAT, "head": DOG},
    {"group": DOG, "cluster": "a", "joint": None, "head": DOG},
    {"group": CAT, "cluster": "b", "joint": CAT, "head": DOG},
]


def test_recordings_count_once_and_differences_are_paired():
    assert real_answers.share(ROWS, "joint")["value"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-4)
    assert real_answers.share(ROWS, "head")["value"] == 0.5
    less = real_answers.share(ROWS, "joint", less="head")
    assert less["value"] == pytest.approx((-2 / 3 + 1) / 2, abs=1e-4)
    assert less["low"] <= less["value"] <= less["high"]
    assert real_answers.groups(ROWS)[DOG] == {"recordings": 3, "joint": 1, "head": 3}


def test_bars_are_those_of_the_issue_and_hold_at_their_values():
    tasks = {row: {"joint": {"value": bar}} for row, _, bar in real_answers.BARS}
    held = real_answers.bars(tasks, {"answers less head": {"value": -0.05}})
    assert all(row["holds"] for row in held)
    tasks["presence_denied"]["joint"]["value"] = 0.79
    broken = real_answers.bars(tasks, {"answers less head": {"value": -0.06}})
    names = [row["row"] for row in broken if not row["holds"]]
    assert names == ["presence_denied", "answers less head"]


def test_answers_are_those_of_the_run_in_every_mode(tmp_path):
    item = {"item_id": "w-sound", "clip_id": "w", "cluster": "a", "row": "sound",
            "references": [DOG]}  # fmt: skip
    other = item | {"item_id": "w-gender", "row": "gender"}
    (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n" + json.dumps(other) + "\n")
    said = {"joint": "A dog barks.", "text": "A dog and a cat.", "shuffled": "No dog; a cat meows."}
    lines = [
        {"item_id": "w-sound", "row": "sound", "mode": mode, "decoding": "greedy", "draw": 0,
         "output": text, "finish_reason": "stop", "tokens": 3, "latency_ms": 1.0}
        for mode, text in said.items()
    ]  # fmt: skip
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="w-sound has no answer of mode silence"):
        real_answers.heard_alone(tmp_path)
    with open(samples, "a") as file:
        file.write(json.dumps(lines[0] | {"mode": "silence", "output": "Nothing."}) + "\n")
    (row,) = real_answers.heard_alone(tmp_path)
    assert [row[mode] for mode in ("joint", "text", "shuffled", "silence")] == [
        DOG,
        None,
        CAT,
        None,
    ]
    assert row["group"] == DOG and row["cluster"] == "a"
