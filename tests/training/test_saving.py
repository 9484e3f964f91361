"""Saving by a thread: donated buffers, one at a time, failures, full disks, signals."""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax import checkpoint
from ltu_jax.checkpoint import recovery
from ltu_jax.core.errors import UserError
from ltu_jax.core.lock import LockedError
from ltu_jax.training import run_folder, saving
from ltu_jax.training.saving import Saver, check_room, checkpoint_bytes
from ltu_jax.training.state import TrainState
from tests.support.tiny_stage import processes

ROOT = Path(__file__).resolve().parent.parent.parent
METADATA = {"kind": "ltu-as-checkpoint"}


def state_at(step: int) -> TrainState:
    trained = {"a.kernel": jnp.full((64, 32), float(step))}
    return TrainState(step=jnp.int32(step), trainable=trained, opt_state={"m": jnp.ones((4,))})


def saver_of(run_dir, *, keep=9) -> Saver:
    return Saver(run_dir, frozen={"b.frozen": jnp.zeros((3,))}, metadata=METADATA, keep=keep)


class Gate:
    """`checkpoint.save` that waits to be let through, or fails."""

    def __init__(self, monkeypatch) -> None:
        self.begun, self.go, self.failure = threading.Event(), threading.Event(), None
        self.at_once = self.most = 0
        self.done: list[int] = []
        self._real = checkpoint.save
        monkeypatch.setattr(checkpoint, "save", self._save)

    def _save(self, run_dir, *, state, **more):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.set()
        assert self.go.wait(60)
        try:
            if self.failure is not None:
                raise self.failure
            return self._real(run_dir, state=state, **more)
        finally:
            self.at_once -= 1
            self.done.append(int(state.step))


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


@jax.jit
def _plus_one(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf + 1, state)


@pytest.mark.parametrize("devices", [1, 8])
def test_what_is_written_is_the_state_at_the_call_though_its_buffers_are_given_away(
    gate, tmp_path, devices
):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    trained = {"a.kernel": jax.device_put(jnp.full((64, 32), 5.0), spread)}
    state = dataclasses.replace(state_at(5), trainable=trained)
    donating = jax.jit(_plus_one, donate_argnums=0)
    with saver_of(tmp_path) as saver:
        folder = saver.save(state)
        assert gate.begun.wait(60) and not folder.exists()  # it did not wait for the disk
        later = donating(state)
        assert state.trainable["a.kernel"].is_deleted()
        later = donating(later)
        saver.poll()
        gate.go.set()
    _, saved = checkpoint.load_adapter(folder)
    np.testing.assert_array_equal(saved["a.kernel"], np.full((64, 32), 5.0, "f"))
    np.testing.assert_array_equal(saved["b.frozen"], np.zeros(3, "f"))
    np.testing.assert_array_equal(later.trainable["a.kernel"], np.full((64, 32), 7.0, "f"))


def test_at_most_one_is_in_flight_and_all_are_written_in_their_order(gate, tmp_path):
    gate.go.set()
    with saver_of(tmp_path, keep=3) as saver:
        for step in range(1, 6):
            saver.save(state_at(step))
    assert gate.most == 1 and gate.done == [1, 2, 3, 4, 5]
    assert checkpoint.steps_in(tmp_path) == [3, 4, 5]


@pytest.mark.parametrize("found_by", ["poll", "save", "finish", "leaving"])
def test_a_failed_save_surfaces_at_the_next_call_and_the_last_good_one_stays(
    gate, tmp_path, found_by
):
    gate.go.set()
    with pytest.raises(UserError) as error, saver_of(tmp_path, keep=1) as saver:
        saver.save(state_at(1))
        saver.finish()
        gate.failure = RuntimeError("the disk is\n gone")
        saver.save(state_at(2))
        if found_by == "poll":
            for _ in itertools.count():  # as the loop does after every step
                saver.poll()
        elif found_by == "save":
            saver.save(state_at(3))
        elif found_by == "finish":
            saver.finish()
    folder = tmp_path / "checkpoints" / "2"
    assert f"{folder} could not be written: the disk is gone" in str(error.value)
    assert "The newest checkpoint is that of step 1" in str(error.value)
    assert gate.done == [1, 2] and recovery.newest_good(tmp_path) == 1


def test_an_error_of_training_lets_the_save_in_flight_end(gate, tmp_path, capfd):
    with pytest.raises(ZeroDivisionError), saver_of(tmp_path) as saver:
        saver.save(state_at(4))
        gate.go.set()
        raise ZeroDivisionError
    assert recovery.newest_good(tmp_path) == 4
    gate.failure = OSError("gone")
    with pytest.raises(ZeroDivisionError), saver_of(tmp_path) as saver:
        saver.save(state_at(6))
        raise ZeroDivisionError
    assert "6 could not be written: gone. The newest checkpoint is that of step 4" in (
        capfd.readouterr().err
    )


# --- full and read-only disks ------------------------------------------------------------------


def fill(run_dir, *more: str) -> dict:
    script = str(ROOT / "tests" / "training" / "full_disk.py")
    (done,) = processes([script, str(run_dir), *more], devices=1)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_told_and_kept(found: dict, run_dir) -> None:
    assert f"{run_dir / 'checkpoints' / '2'} could not be written: " in found["error"]
    assert "The newest checkpoint is that of step 1; make room" in found["error"]
    assert (found["newest"], found["same"], found["after"]) == (1, True, 3)
    assert found["left"] == ["1"]  # what was half written gives its room back


def test_a_file_that_cannot_grow_is_an_error_of_this_save(tmp_path):
    found = fill(tmp_path / "run", "4", "500000")  # less than one of its arrays
    assert "File too large" in found["error"]
    assert_told_and_kept(found, tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs rights; the test with a file limit ran")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_an_error_of_this_save(small_disk):
    found = fill(small_disk / "run", "8")
    assert "[Errno 28] 8,388,612 bytes are needed and " in found["error"]
    assert_told_and_kept(found, small_disk / "run")


@contextlib.contextmanager
def read_only(folder: Path):
    """A folder that may be read and not written, also by root."""
    if os.geteuid() == 0:  # as nobody, who owns nothing here
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
                parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)


def test_a_folder_that_turned_read_only_is_an_error_of_this_save(tmp_path):
    with pytest.raises(UserError) as error, saver_of(tmp_path) as saver:
        saver.save(state_at(1))
        saver.finish()
        with read_only(tmp_path / "checkpoints"):
            saver.save(state_at(2))
            saver.finish()
    assert "could not be written: [Errno 13] Permission denied" in str(error.value)
    assert recovery.newest_good(tmp_path) == 1


def test_a_read_only_folder_is_told_before_training(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with (
        read_only(tmp_path / "checkpoints"),
        pytest.raises(UserError, match=r"cannot be written in .* \(Permission denied\)"),
    ):
        check_room(tmp_path, size=1, keep=1, saves=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"\(Not a directory\)"):
        check_room(tmp_path / "file" / "run", size=1, keep=1, saves=1)


def simulated_peak(*, present: int, keep: int, saves: int) -> int:
    """How many checkpoints more than now lie on the disk at the worst moment."""
    now = worst = present
    for _ in range(saves):
        now += 1
        worst = max(worst, now)
        now = min(now, keep)
    return worst - present


@pytest.mark.parametrize("present", [0, 1, 2, 3])
@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("saves", [1, 2, 5])
def test_the_room_that_is_needed(tmp_path, monkeypatch, present, keep, saves):
    for step in range(present):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    peak = simulated_peak(present=present, keep=keep, saves=saves)
    free = 0

    def usage(folder):
        return types.SimpleNamespace(total=10**9, free=free)

    monkeypatch.setattr(saving.shutil, "disk_usage", usage)
    free = peak * 1_000_000
    check_room(tmp_path, size=1_000_000, keep=keep, saves=saves)
    free -= 1
    with pytest.raises(UserError) as error:
        check_room(tmp_path, size=1_000_000, keep=keep, saves=saves)
    assert f"and {peak} more checkpoints of up to 1.0 MB" in str(error.value)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == set(
        map(str, range(present))
    )


def test_the_estimate_is_an_upper_bound_and_no_fantasy(tmp_path):
    rng = np.random.default_rng(0)
    trained = {f"a.{i}": rng.normal(size=(256, 512)).astype("f") for i in range(20)}
    moments = jax.tree.map(lambda leaf: leaf * 2, trained)
    state = TrainState(step=np.int32(1), trainable=trained, opt_state=(moments, moments))
    frozen = {"b.frozen": rng.normal(size=(512, 512)).astype("f")}
    with Saver(tmp_path, frozen=frozen, metadata=METADATA, keep=1) as saver:
        folder = saver.save(state)
    actual = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    estimate = checkpoint_bytes({**trained, **frozen}, state)
    assert actual <= estimate <= 1.3 * actual


# --- signals -----------------------------------------------------------------------------------


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_signals_during_a_save_wait_for_its_end(gate, tmp_path, capfd):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with saver_of(tmp_path) as saver:
        saver.save(state_at(3))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            send(number)
        gate.go.set()
    assert saver.signal == signal.SIGTERM and recovery.newest_good(tmp_path) == 3
    assert capfd.readouterr().err.count("stopping after a checkpoint") == 1
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_sigint_with_no_save_in_flight_ends_training(tmp_path):
    with pytest.raises(KeyboardInterrupt), saver_of(tmp_path):
        send(signal.SIGINT)


def test_a_signal_from_before_the_loop_took_them_is_handed_to_it(tmp_path):
    got = []
    with saver_of(tmp_path) as saver:
        send(signal.SIGTERM)
        saver.poll()  # nobody takes it yet
        assert saver.signal == signal.SIGTERM
        ours = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
        saver.poll()
        signal.signal(signal.SIGTERM, ours)
    assert got == [signal.SIGTERM] and saver.signal == 0


def test_a_run_folder_that_vanishes_ends_the_run_and_is_not_made_again(tmp_path, capsys):
    run = tmp_path / "run"
    with (
        pytest.raises(LockedError, match="vanished"),
        run_folder.locked(run, job="x") as turn,
        Saver(run, frozen={}, metadata=METADATA, keep=9, turn=turn) as saver,
    ):
        saver.save(state_at(1))
        saver.save(state_at(2))  # waits for the one before
        assert capsys.readouterr().out == f"saved {run}/checkpoints/1\n"  # for resume.sh
        saver.finish()
        run.rename(tmp_path / "unmounted")
        saver.save(state_at(3))
    assert not run.exists() and checkpoint.steps_in(tmp_path / "unmounted") == [1, 2]
    assert capsys.readouterr().out == ""  # the first one says it all
