"""Lists of windows and of speech: written and read, broken lines refused by name."""

import dataclasses
import json

import pytest

from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.real import recording_table, speech_lines, window_manifest, window_plan
from data_pipelines.real.speech_lines import SpokenClip
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import write_jsonl

SPOKEN = SpokenClip(
    name="af_heart_0001", file="train/af_heart_0001.flac", seconds=3.2, text="It is late.",
    gender="female", voice="af_heart", accent="American English", speed=1.1, split="train",
    licence="Apache-2.0", ships=True, f0_hz=201.5, speech_seconds=2.9, packages=(),
)  # fmt: skip
RECORDINGS = {one.clip: one for one in recording_table.recordings()}


def planned(split="train"):
    sides = recording_table.validation_sides(recording_table.recordings())
    given = sides.train if split == "train" else sides.held_out
    windows = window_plan.plan(
        given, of_class=2, voices={SPOKEN.name: SPOKEN.seconds}, speech=0.5, more=0.4, seed=1
    )
    absent = window_plan.AbsentClasses(windows, seed=1)
    for window in windows:
        yield window, window_manifest.window_line(
            window, split=split, file=f"{split}/{window.window_id}.flac",
            absent=absent.of(window, count=2), recordings=RECORDINGS,
            speech=SPOKEN if window.speech else None,
        )  # fmt: skip


def test_a_plan_comes_back_from_its_list(tmp_path):
    windows, lines = zip(*planned(), strict=True)
    write_jsonl(tmp_path / "windows.jsonl", [line.to_json() for line in lines])
    back = [line for _, line in window_manifest.read_windows(tmp_path / "windows.jsonl")]
    assert back == list(lines)
    for window, line in zip(windows, back, strict=True):
        own = [RECORDINGS[clip] for layer in window.layers for clip in layer.clips]
        licences = {one.licence for one in own} | ({"Apache-2.0"} if window.speech else set())
        assert set(line.licences) == licences and line.ships == all(one.ships for one in own)
        assert (line.speech is None) == (window.speech == "")
        assert line.window_id == f"train-{window.window_id}"


def broken(**changed):
    line = next(line for _, line in planned() if line.speech is not None)
    return line.to_json() | changed


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"clases": []}, "unknown keys clases"),
        ({"ships": "yes"}, r"ships is 'yes'"),
        ({"split": "test"}, r"split is 'test': give one of train, val"),
        ({"kind": "quiet"}, r"kind is 'quiet'"),
        ({"kind": "noise"}, r"kind is noise and classes is"),
        ({"classes": [], "speech": None}, "with neither classes nor speech"),
        ({"classes": ["Dog"], "absent": ["Cat", "Dog"]}, "'Dog' is in classes and in absent"),
        ({"absent": ["Zebra"]}, "'Zebra' is no class of windows: use one of Dog, "),
        ({"file": "../a.flac"}, r"file is '../a.flac': give a file below"),
        ({"file": "/a.flac"}, r"file is '/a.flac'"),
        ({"licences": []}, "needs a window_id and the licences"),
    ],
)
def test_a_broken_line_is_an_error_by_name_and_place(tmp_path, changed, told):
    path = tmp_path / "windows.jsonl"
    write_jsonl(path, [broken(), broken(**changed)])
    with pytest.raises(UserError, match=rf"windows.jsonl:2.*{told}"):
        list(window_manifest.read_windows(path))
    problems = RecordProblems()
    assert len(list(window_manifest.read_windows(path, problems))) == 1
    assert len(problems.found) == 1


def test_recordings_and_voices_stand_in_one_split(tmp_path):
    path = tmp_path / "windows.jsonl"
    line = broken()
    write_jsonl(path, [line, line | {"split": "val", "speech": None}])
    with pytest.raises(UserError, match=r"cluster .* is in the val split, and in an earlier line"):
        list(window_manifest.read_windows(path))
    write_jsonl(path, [line, line | {"split": "val", "clusters": []}])
    with pytest.raises(UserError, match="voice af_heart is in the val split"):
        list(window_manifest.read_windows(path))


def test_speech_comes_back_and_a_broken_line_is_named(tmp_path):
    record = dataclasses.asdict(SPOKEN)
    write_jsonl(tmp_path / "speech.jsonl", [record])
    assert list(speech_lines.read_speech(tmp_path)) == [SPOKEN]
    for changed, told in (
        ({"gender": "woman"}, "gender is 'woman'"),
        ({"seconds": "3"}, "seconds is '3'"),
        ({"seconds": 10**400}, "seconds is 1000"),
        ({"text": " "}, "text is empty"),
        ({"split": "dev"}, "split is 'dev'"),
        ({"file": "a/../../b.flac"}, "below the folder"),
    ):
        write_jsonl(tmp_path / "speech.jsonl", [record, record | changed])
        with pytest.raises(UserError, match=rf"speech.jsonl:2.*{told}"):
            list(speech_lines.read_speech(tmp_path))
        problems = RecordProblems()
        assert list(speech_lines.read_speech(tmp_path, problems)) == [SPOKEN]
        assert len(problems.found) == 1
    (tmp_path / "speech.jsonl").write_text(json.dumps(record)[:-3] + "\n")
    with pytest.raises(UserError, match="speech.jsonl:1 is not valid JSON"):
        list(speech_lines.read_speech(tmp_path))
