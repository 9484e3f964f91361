"""Damage to any file of a checkpoint is found, named, set aside, and costs one interval."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ltu_jax import checkpoint, convert
from ltu_jax.checkpoint import CheckpointError, integrity, recovery, writer
from ltu_jax.checkpoint.integrity import Damaged
from ltu_jax.core.errors import UserError
from ltu_jax.training.state import TrainState
from tests.faults.damage import DAMAGES, delete, flip, names
from tests.support.tiny_stage import processes

ROOT = Path(__file__).resolve().parent.parent.parent

METADATA = {"kind": "ltu-as-checkpoint", "stage": "stage3", "model": {}, "config": {"seed": 0}}


def state_at(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    trained = {name: rng.normal(size=(24, 16)).astype("f") for name in ("a.kernel", "b.kernel")}
    moments = {path: leaf * 2 for path, leaf in trained.items()}
    return TrainState(step=np.int32(step), trainable=trained, opt_state=(moments, np.int32(step)))


def save(run_dir, step, *, keep=9):
    state = state_at(step)
    adapter = {**state.trainable, "c.frozen": np.ones((3,), "f")}
    return checkpoint.save(run_dir, state=state, adapter=adapter, metadata=METADATA, keep=keep)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run saved at steps 3 and 5."""
    run_dir = tmp_path_factory.mktemp("integrity") / "run"
    for step in (3, 5):
        save(run_dir, step)
    return run_dir


def copy(run, place):
    return shutil.copytree(run, place / "run")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda it: it.__name__)
def test_damage_to_any_file_is_found_and_the_step_before_goes_on(run, tmp_path, damage, capfd):
    listed, rng = names(run / "checkpoints" / "5"), random.Random(0)
    assert {"metadata.json", "metadata.json.sha256"} < set(listed) and len(listed) > 20
    for number, name in enumerate(listed):
        run_dir = copy(run, tmp_path / str(number))
        folder = run_dir / "checkpoints" / "5"
        before = (folder / name).read_bytes()
        damage(folder / name, rng)
        assert damage is delete or (folder / name).read_bytes() != before, name
        assert recovery.newest_good(run_dir) == 3, name
        told = capfd.readouterr().err
        assert f"{folder} is damaged: " in told and name.rpartition("/")[2] in told
        assert "set aside as 5.damaged-1" in told
        assert "going on from step 3: 2 steps are lost" in told
        left = {path.name for path in (run_dir / "checkpoints").iterdir()}
        assert left == {"3", "5.damaged-1"}
        if number == 0:
            _, adapter = checkpoint.load_adapter(run_dir)
            for path, leaf in state_at(3).trainable.items():
                np.testing.assert_array_equal(adapter[path], leaf)
        shutil.rmtree(run_dir)


def test_a_good_run_is_left_alone(run, capfd):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert recovery.newest_good(run) == 5
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert capfd.readouterr().err == ""


def test_nothing_saved_yet(tmp_path):
    assert recovery.newest_good(tmp_path / "nowhere") is None


def test_when_all_are_damaged_it_stops_once_and_then_begins_anew(run, tmp_path, capfd):
    run_dir = copy(run, tmp_path)
    for step in ("3", "5"):
        delete(run_dir / "checkpoints" / step / "metadata.json", None)
    with pytest.raises(UserError) as error:
        recovery.newest_good(run_dir)
    assert "no good checkpoint is left, 5 steps are lost" in str(error.value)
    assert "(3.damaged-*, 5.damaged-*)" in str(error.value)
    assert recovery.newest_good(run_dir) is None


def test_a_step_damaged_twice_is_set_aside_under_two_names(run, tmp_path):
    run_dir = copy(run, tmp_path)
    for _ in range(2):
        (run_dir / "checkpoints" / "5" / "metadata.json").unlink()
        assert recovery.newest_good(run_dir) == 3
        save(run_dir, 5)
    left = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert left == {"3", "5", "5.damaged-1", "5.damaged-2"}
    assert checkpoint.steps_in(run_dir) == [3, 5]


def test_what_a_killed_save_left_does_not_count_and_goes(run, tmp_path):
    run_dir = copy(run, tmp_path)
    (run_dir / "checkpoints" / ".tmp-7" / "adapter").mkdir(parents=True)
    assert recovery.newest_good(run_dir) == 5
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"3", "5"}


def test_a_folder_without_a_manifest_is_damage(run, tmp_path):
    # A rename that is no single act (a mounted bucket) can leave one.
    run_dir = copy(run, tmp_path)
    (run_dir / "checkpoints" / "9").mkdir()
    with pytest.raises(Damaged, match="9 is damaged: its file metadata.json is missing"):
        checkpoint.load_adapter(run_dir)
    assert recovery.newest_good(run_dir) == 5


def test_what_cannot_be_read_is_not_called_damaged(run, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    run_dir = copy(run, tmp_path)
    monkeypatch.setattr(integrity, "sha256_file", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        recovery.newest_good(run_dir)
    assert checkpoint.steps_in(run_dir) == [3, 5]


def test_the_hashes_are_those_of_sha256sum(run):
    folder = run / "checkpoints" / "5"
    command = ["sha256sum", "--check", "--strict", "metadata.json.sha256"]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    listed = json.loads((folder / "metadata.json").read_text())["files"]
    assert sorted(listed) == [n for n in names(folder) if not n.startswith("metadata.json")]
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_all_is_flushed_before_the_name_is_given_and_the_name_before_older_ones_go(
    tmp_path, monkeypatch
):
    events, rename = [], os.rename

    def note(path):
        events.append(("flush", path.name))

    def note_rename(source, target):
        if Path(source).parent.name == "checkpoints":
            events.append(("rename", Path(source).name))
        rename(source, target)

    save(tmp_path, 1)
    monkeypatch.setattr(integrity, "flush", note)
    monkeypatch.setattr(writer, "flush", note)
    monkeypatch.setattr(os, "rename", note_rename)
    save(tmp_path, 2, keep=1)
    named = events.index(("rename", ".tmp-2"))
    flushed = {name for kind, name in events[:named] if kind == "flush"}
    final = tmp_path / "checkpoints" / "2"
    assert flushed == {path.name for path in final.rglob("*")} | {".tmp-2"}
    assert events[named + 1 :] == [("flush", "checkpoints"), ("rename", "1")]


def test_a_checkpoint_of_an_older_format_is_refused_and_left_where_it_is(run, tmp_path):
    run_dir = copy(run, tmp_path)
    folder = run_dir / "checkpoints" / "5"
    (folder / "metadata.json.sha256").unlink()  # format 1 had none
    metadata = json.loads((folder / "metadata.json").read_text()) | {"ltu_jax": 1}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    for read in (checkpoint.load_adapter, recovery.newest_good):
        with pytest.raises(CheckpointError, match="format 1 .* reads format 2") as error:
            read(run_dir)
        assert not isinstance(error.value, Damaged) and folder.is_dir()


def test_a_seal_that_is_gone_is_damage(run, tmp_path):
    run_dir = copy(run, tmp_path)
    (run_dir / "checkpoints" / "5" / "metadata.json.sha256").unlink()
    with pytest.raises(Damaged, match="its file metadata.json.sha256 is missing"):
        checkpoint.load_adapter(run_dir)


def test_who_only_reads_is_told_and_nothing_is_moved(run, tmp_path):
    run_dir = copy(run, tmp_path)
    (run_dir / "checkpoints" / "5" / "adapter" / "_METADATA").unlink()
    for path in (run_dir, run_dir / "checkpoints" / "5"):
        with pytest.raises(Damaged) as error:
            checkpoint.load_adapter(path)
        assert "files missing or changed since they were saved: adapter/_METADATA (missing)" in (
            str(error.value)
        )
        assert f"python -m ltu_jax.convert verify {run_dir / 'checkpoints'}" in str(error.value)
    assert checkpoint.steps_in(run_dir) == [3, 5]


def verified(path, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        convert.main(["verify", str(path)])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err


def test_verify_of_a_run_of_runs_and_of_one_checkpoint(run, capsys):
    for path, count in ((run, 2), (run / "checkpoints", 2), (run.parent, 2),
                        (run / "checkpoints" / "3", 1)):  # fmt: skip
        code, out, err = verified(path, capsys)
        assert (code, err) == (0, "") and out.count(": good\n") == count


def test_verify_names_what_is_damaged_and_changes_nothing(run, tmp_path, capsys):
    run_dir = copy(run, tmp_path)
    folder = run_dir / "checkpoints" / "3"
    flip(folder / "adapter" / "_METADATA", random.Random(2))
    code, out, err = verified(run_dir, capsys)
    good, bad = sorted(out.splitlines(), key=lambda line: "damaged" in line)
    assert code == 2 and good.endswith(": good")
    assert bad.endswith("files missing or changed since they were saved: adapter/_METADATA")
    assert err.startswith(f"error: 1 of 2 checkpoints damaged: {folder}")
    assert checkpoint.steps_in(run_dir) == [3, 5]


def test_verify_of_a_folder_without_checkpoints(tmp_path, capsys):
    code, _, err = verified(tmp_path, capsys)
    assert code == 2 and "has no checkpoints/<step>" in err


def test_what_one_process_finds_is_so_for_both(tmp_path):
    script = str(ROOT / "tests" / "training" / "recovery_as_one.py")
    command = [script, str(tmp_path / "run")]
    ended = processes(command, command, devices=1)
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    first, second = (json.loads(one.stdout.splitlines()[-1]) for one in ended)
    assert first == second
    assert first["newest"] == 3 and first["left"] == ["3", "5.damaged-1", "7.damaged-1"]
    assert "7 is damaged: bits fell over here on process 1" in ended[0].stderr
    assert "going on from step 3: 4 steps are lost" in ended[0].stderr
    assert "damaged" not in ended[1].stderr  # said once
    assert first["start"].startswith("no start: ") and "gone does not exist" in first["start"]
    assert first["agreed"] and "9 could not be written: [Errno 28] No space left" in first["error"]
