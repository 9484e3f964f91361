"""Corpora of windows: sides that share no recording, and a build that goes on where it stopped."""

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from data_pipelines.real import (
    build_windows,
    recording_table,
    window_corpus,
    window_plan,
    window_sides,
)
from data_pipelines.real.recording_table import Recording
from data_pipelines.real.window_manifest import SOUNDS, read_windows
from data_pipelines.real.window_sides import EACH_FOLD, VAL, WindowOptions
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file

OPTIONS = WindowOptions(of_class=2, more=0.5, speech=0.0, quiet=2, seed=3)
ALL = recording_table.recordings()


def recording(number, label, group, *, split="train", fold=0, cluster="", seconds=2.0):
    name = f"pack{fold}__{label.lower()}{number}"
    return Recording(
        clip=name, package=f"pack{fold}", file=f"{name}.wav", label=label, fine=label,
        group=group, seconds=seconds, licence=f"L{fold}", ships=number % 2 == 0, split=split,
        fold=fold, cluster=cluster or name, sha256="", confirmed=True, gender="", text="", where="",
    )  # fmt: skip


GIVEN = [
    recording(number, label, group, split=split, fold=fold, seconds=0.4 + number)
    for label, group in (("Dog", "Dog / wolf"), ("Rain", "Water / rain / thunder / fire"))
    for number, (split, fold) in enumerate((("train", 0), ("train", 0), ("val", 1)))
]


class Ears:
    """A teacher that hears how loud a window is on average."""

    classes = ("Dog", "Speech", "Narration, monologue")

    def scores(self, samples):
        return np.full((3, len(self.classes)), min(1.0, float(np.abs(samples).mean())))


class Sounds:
    """Recordings made up of their names; `left` of them can be loaded before the power fails."""

    def __init__(self, left=1_000):
        self.left, self.loaded = left, 0

    def __call__(self, name):
        self.loaded += 1
        if self.loaded > self.left:
            raise KeyboardInterrupt
        rng = np.random.default_rng(sum(name.encode()))
        return rng.standard_normal(8_000 + 100 * len(name))


def build(out, *, options=OPTIONS, sounds=None, spoken=None):
    spoken = spoken or {}
    planned = window_sides.plan_sides(
        GIVEN, hold_out=VAL, options=options,
        voices={name: one.seconds for name, one in spoken.items()},
    )  # fmt: skip
    return window_corpus.write_corpus(
        out, planned, options=dataclasses.asdict(options), given=GIVEN, spoken=spoken,
        load=(sounds or Sounds(), Sounds()), teacher=Ears(),
    )  # fmt: skip


def content(folder):
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_parts_of_folds_hold_their_own_recordings_and_no_twin_of_another_fold():
    planned = window_sides.plan_sides(ALL, hold_out=EACH_FOLD, options=OPTIONS, voices={})
    by_clip = {one.clip: one for one in ALL}
    owner: dict[str, int] = {}
    for one in planned.windows:
        used = [by_clip[clip] for layer in one.window.layers for clip in layer.clips]
        assert {
            window_sides.fold_dataset(own.fold, ships=own.ships) for own in used
        } == {one.dataset}  # fmt: skip
        for own in used:
            assert owner.setdefault(own.cluster, own.fold) == own.fold
    alone = [one for one in planned.windows if window_sides.is_alone(one.clip_id)]
    usable = [one for own in window_plan.usable(ALL, seed=3).values() for one in own if one.group]
    heard = [one.window.layers[0].clips[0] for one in alone]
    assert len(set(heard)) == len(heard) > 0.95 * len(usable)
    assert all(len(one.window.classes) == len(one.window.groups) == 1 for one in alone)


@pytest.mark.parametrize("hold_out", [VAL, "fold:2"])
def test_what_is_held_out_is_heard_alone_and_shares_no_recording(hold_out):
    planned = window_sides.plan_sides(ALL, hold_out=hold_out, options=OPTIONS, voices={})
    clusters = {
        split: {name for one in planned.windows if one.split == split
                for name in one.window.clusters}
        for split in ("train", "val")
    }  # fmt: skip
    assert clusters["train"] and clusters["val"] and not clusters["train"] & clusters["val"]
    assert len({one.clip_id for one in planned.windows}) == len(planned.windows)
    held = [one for one in planned.windows if one.split == "val"]
    assert [one.kind for one in held if one.kind != SOUNDS] == ["silence", "noise"]
    for one in (one for one in held if one.kind == SOUNDS):
        (layer,) = one.window.layers
        assert len(set(layer.clips)) == 1 and layer.start == 0 and not one.window.speech


def test_held_out_voices_speak_over_held_out_recordings_once_each():
    held_voices = {f"v{number}": 2.0 for number in range(90)}
    planned = window_sides.plan_sides(
        ALL, hold_out=VAL, options=OPTIONS, voices={}, held_voices=held_voices
    )
    over = [one for one in planned.windows if one.window.speech]
    assert {one.split for one in over} == {"val"} and {one.kind for one in over} == {SOUNDS}
    assert sorted(one.window.speech for one in over) == sorted(held_voices)
    learnt = {
        name for one in planned.windows if one.split == "train" for name in one.window.clusters
    }
    assert not learnt & {name for one in over for name in one.window.clusters}
    times = Counter(one.window.classes for one in over)
    assert max(times.values()) - min(times.values()) <= 1  # each class is spoken over as often
    assert all(0 <= one.window.speech_decibels <= 10 for one in over)
    alone = window_sides.plan_sides(ALL, hold_out=VAL, options=OPTIONS, voices={})
    assert [one for one in planned.windows if one not in over] == list(alone.windows)


def test_a_short_recording_comes_again_until_its_window_is_full():
    short, long = recording(7, "Dog", "Dog / wolf", seconds=0.4), GIVEN[1]
    by_clip = {
        one.layers[0].clips[0]: one.layers[0] for one in window_plan.alone([short, long], seed=0)
    }
    layer = by_clip[short.clip]
    lasts = 0.4 * len(layer.clips) + sum(layer.gaps)
    assert 10 - 0.4 - 0.3 < lasts <= 10
    assert by_clip[long.clip].clips == (long.clip,)


def test_a_stopped_build_goes_on_and_is_the_same(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    sounds = Sounds()
    manifest = build(whole, sounds=sounds)
    with pytest.raises(KeyboardInterrupt):
        build(stopped, sounds=Sounds(left=sounds.loaded // 2))
    rest = Sounds()
    assert build(stopped, sounds=rest) == manifest
    assert 0 < rest.loaded < sounds.loaded
    assert content(stopped) == content(whole)
    again = Sounds(left=0)
    assert build(stopped, sounds=again) == manifest
    next(stopped.glob("audio/train/*.flac")).write_bytes(b"cut")
    build(stopped)
    assert content(stopped)["clips.jsonl"] == content(whole)["clips.jsonl"]
    with pytest.raises(UserError, match="of_class 2 there and 3 here"):
        build(stopped, options=dataclasses.replace(OPTIONS, of_class=3))


def test_lines_have_labels_licences_and_who_speaks(tmp_path):
    voice = {"name": "v1", "file": "v1.wav", "seconds": 2.0, "text": "good day", "gender": "male",
             "voice": "v", "accent": "us", "speed": 1.0, "split": "train", "licence": "V",
             "ships": True, "f0_hz": 110.0, "speech_seconds": 1.5,
             "packages": ["kokoro-js"]}  # fmt: skip
    (tmp_path / "speech.jsonl").write_text(json.dumps(voice) + "\n")
    with pytest.raises(UserError, match="there is no v1.wav"):
        window_corpus.read_spoken(tmp_path)
    (tmp_path / "v1.wav").touch()
    spoken = window_corpus.read_spoken(tmp_path)
    assert spoken["v1"].gender == "male"
    (tmp_path / "speech.jsonl").write_text(json.dumps(voice | {"split": "val"}) + "\n")
    with pytest.raises(UserError, match="no line of split 'train'"):
        window_corpus.read_spoken(tmp_path)
    options = dataclasses.replace(OPTIONS, speech=1.0)
    manifest = build(tmp_path / "out", options=options, spoken=spoken)
    clips = [json.loads(line) for line in (tmp_path / "out/clips.jsonl").read_text().splitlines()]
    labels = json.loads((tmp_path / "out/tag_labels.json").read_text())
    assert labels[:60] == list(window_plan.CLASSES) and labels[60:62] == list(Ears.classes[1:])
    assert {tag for clip in clips for tag in clip["tags"]} <= set(labels)  # no teacher has genders
    train = [clip for clip in clips if clip["split"] == "train"]
    lines = {line.window_id: line for _, line in read_windows(tmp_path / "out/windows.jsonl")}
    assert list(lines) == [clip["clip_id"] for clip in clips]
    assert {lines[clip["clip_id"]].speech.text for clip in train} == {"good day"}
    assert all(clip["source"]["license"].endswith("V") for clip in train)
    assert all("Male speech, man speaking" in clip["tags"] for clip in train)
    assert all(clip["source"]["packages"] == ["kokoro-js"] for clip in train)
    held = [clip for clip in clips if clip["split"] == "val"]
    assert {clip["source"]["license"] for clip in held} == {"L1", "none: synthetic"}
    assert not any(clip["source"]["packages"] for clip in held)
    quiet = {"silence", "noise"}
    assert {len(clip["tags"]) for clip in held if lines[clip["clip_id"]].kind not in quiet} == {1}
    assert all(line.absent for line in lines.values() if len(line.classes) < 2)
    scored = (tmp_path / "out/teacher_scores.jsonl").read_text().splitlines()
    assert len(scored) == 1 + len(train) == 1 + manifest["counts"][0]["windows"]
    shutil.rmtree(tmp_path / "out")


def test_windows_of_no_class_are_asked_for_with_folds_alone():
    with pytest.raises(UserError, match="--of-class 0: give a number from 1"):
        build_windows.run(["--of-class", "0"])
