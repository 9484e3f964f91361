"""The demo driver: its steps, its clip and its bars."""

import json

import pytest

from ltu_jax import demo
from ltu_jax.core.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_steps_and_their_order(here):
    folders = demo.Folders(assets=here / "a", corpus=here / "c", records=here / "r", run=here / "x")
    modules = [command[0] for item in demo.steps(folders) for command in item.commands]
    assert modules == [
        "ltu_jax.fetch",
        "data_pipelines.build_mini",
        "data_pipelines.write_records",
        "ltu_jax.train",
        "ltu_jax.evaluate",
        "ltu_jax.convert",
        "ltu_jax.convert",
    ]


def test_the_held_out_clip_has_speech_over_a_sound(here):
    clips = [
        {"split": "train", "kind": "joint", "spoken_text": "a", "audio": "1"},
        {"split": "test", "kind": "sound", "spoken_text": "", "audio": "2"},
        {"split": "test", "kind": "joint", "spoken_text": "", "audio": "3"},
        {"split": "test", "kind": "joint", "spoken_text": "b", "audio": "4"},
    ]
    (here / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    assert demo.held_out_clip(here) == here / "4"
    (here / "clips.jsonl").write_text(json.dumps(clips[0]) + "\n")
    with pytest.raises(UserError, match="no test clip of speech over a sound; rebuild it"):
        demo.held_out_clip(here)


def test_a_bar_that_does_not_hold_is_counted_and_named():
    tasks = {}
    for task, mode, _, bar in demo.BARS:
        tasks.setdefault(task, {})[mode] = {"value": bar}  # a bar itself holds
    assert demo.judge(tasks)[1] == 0
    tasks["sound"]["silence"] = {"value": 0.16}
    tasks["spoken_text"]["audio"] = {"value": 0.79}
    lines, failed = demo.judge(tasks)
    assert failed == 2
    broken = [line.split()[:2] for line in lines if line.endswith("FAILED")]
    assert broken == [["sound", "silence"], ["spoken_text", "audio"]]
