"""The lock of a run folder: one holder, named; dead ones are followed, sleepers step back."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from ltu_jax.core import lock
from ltu_jax.core.errors import UserError
from ltu_jax.core.lock import BEAT, FOLDER, LEASE, LockedError, RunLock
from tests.support.bucket import NAME

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = dict(job="stage3", lease=0.6, beat=0.05)


def claims(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).iterdir()) if (folder / FOLDER).is_dir() else []


@pytest.fixture
def elsewhere(monkeypatch):
    """Make a lock as a process of another machine makes it."""

    def make(folder, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(lock, "machine", lambda: "another machine")
            patch.setattr(lock.platform, "node", lambda: "host-b")
            return RunLock(folder, **{**QUICK, **settings})

    return make


def rounds_of_starts(tmp_path: Path, count: int, *address: str) -> None:
    """Play rounds of processes that want one lock, and require one holder in each."""
    script = ROOT / "tests" / "core" / "lock_rounds.py"
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(count), "1", *address],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    rounds = [line.split() for line in ended.stdout.splitlines()]
    assert len(rounds) == count
    for patient, held, refused, two in rounds:
        assert int(held) >= 1 and int(held) + int(refused) == 3 and two == "0"
        if patient == "True":
            assert (held, refused) == ("1", "2")


def test_starts_0_to_50_ms_apart_have_one_holder_and_losers_that_know_its_name(tmp_path):
    rounds_of_starts(tmp_path, 48)
    assert not any(claims(tmp_path / str(number)) for number in range(48))


def test_so_they_have_on_a_bucket(tmp_path, bucket):
    rounds_of_starts(tmp_path, 8, f"gs://{NAME}/rounds")
    assert bucket.names() == []


def test_a_dead_holder_on_a_bucket_is_taken_over_and_hears_of_it(bucket, elsewhere, capsys):
    folder = f"gs://{NAME}/run"
    with elsewhere(folder).hold() as first:
        with pytest.raises(LockedError, match="host-b"), RunLock(folder, **QUICK).hold():
            pass
        first.check()
    dead = elsewhere(folder)
    dead._acquire()  # and never a sign of life again
    with RunLock(folder, **QUICK).hold() as mine:
        mine.check()
        assert bucket.names()[0] == f"run/{FOLDER}/00000002"
        with pytest.raises(OSError):
            dead._claims.renew(1, b"late")  # its generation is gone: nothing is written
        assert bucket.names()[0] == f"run/{FOLDER}/00000002"
        with pytest.raises(LockedError, match=f"taken over by process {os.getpid()} on host"):
            dead.check()
    assert "took over" in capsys.readouterr().err


def test_a_bucket_that_vanishes_is_an_error(bucket):
    with RunLock(f"gs://{NAME}/run", **QUICK).hold() as mine:
        bucket.vanish()
        with pytest.raises(UserError, match=f"gs://{NAME}/run"):
            mine.check()
    with pytest.raises(UserError, match="gs://no-such-bucket/run"):
        RunLock("gs://no-such-bucket/run", **QUICK)._acquire()


def test_the_second_one_learns_host_and_process_of_the_first(tmp_path):
    with RunLock(tmp_path, **QUICK).hold():
        with pytest.raises(LockedError) as error, RunLock(tmp_path, **QUICK).hold():
            pass
        told = json.loads(claims(tmp_path)[0].read_text())
        assert told["host"] == lock.platform.node() and told["process"] == os.getpid()
        for part in (str(tmp_path), f"process {os.getpid()}", lock.platform.node(), "run_dir"):
            assert part in str(error.value)


def test_nothing_is_left_of_a_lock_that_was_given_back(tmp_path):
    with RunLock(tmp_path / "made" / "run", **QUICK).hold():
        assert claims(tmp_path / "made" / "run")
    assert not (tmp_path / "made").exists()
    (tmp_path / "kept").mkdir()
    with RunLock(tmp_path / "kept", **QUICK).hold():
        (tmp_path / "kept" / "log.jsonl").touch()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["log.jsonl"]


def test_one_that_lives_on_another_machine_is_not_taken_over(tmp_path, elsewhere):
    with elsewhere(tmp_path).hold() as first:
        named = pytest.raises(LockedError, match="process .* on host host-b")
        with named, RunLock(tmp_path, **QUICK).hold():
            pass
        first.check()


def test_one_that_died_on_another_machine_is_taken_over_after_its_lease(
    tmp_path, elsewhere, capsys
):
    dead = elsewhere(tmp_path)
    dead._acquire()  # and never a sign of life again
    with RunLock(tmp_path, **QUICK).hold() as mine:
        mine.check()
        assert [path.name for path in claims(tmp_path)][0] == "00000002"
    said = capsys.readouterr().err
    assert "waiting up to" in said and "host host-b" in said and "took over" in said
    with pytest.raises(LockedError, match=f"taken over by process {os.getpid()} on host"):
        dead.check()  # though that one has ended
    assert LEASE + 2 * BEAT <= 60


def test_a_claim_that_says_nothing_counts_as_one_that_shows_no_life(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "00000007").touch()  # killed between making and writing it
    with RunLock(tmp_path, **QUICK).hold() as mine:
        mine.check()
        assert [path.name for path in claims(tmp_path)] == ["00000008"]


def test_a_killed_process_of_this_machine_is_seen_at_once(tmp_path):
    pid = os.fork()
    if not pid:
        RunLock(tmp_path, job="stage3", lease=1e6, beat=1e5)._acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie still: nobody has asked for it
    with RunLock(tmp_path, job="stage3", lease=1e6, beat=1e5).hold() as mine:
        mine.check()
    os.waitpid(pid, 0)


def test_a_number_that_another_process_has_now_is_no_life(tmp_path):
    first = RunLock(tmp_path, job="stage3", lease=1e6, beat=1e5)
    first._me["started"] = "1"  # this very number, but a process that began at another time
    first._acquire()
    with RunLock(tmp_path, job="stage3", lease=1e6, beat=1e5).hold() as mine:
        mine.check()


def test_a_sleeper_steps_back_by_name_when_it_wakes(tmp_path):
    ready, go, parent = os.pipe(), os.pipe(), os.getpid()
    pid = os.fork()
    if not pid:
        status = 9
        try:
            with RunLock(tmp_path, **QUICK).hold() as own:
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                try:
                    own.check()
                    status = 1
                except LockedError as error:
                    status = 0 if f"process {parent}" in str(error) else 2
        finally:
            os._exit(status)
    os.read(ready[0], 1)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    with RunLock(tmp_path, **QUICK).hold() as mine:
        os.kill(pid, signal.SIGCONT)
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        mine.check()  # the sleeper took nothing with it
        assert [path.name for path in claims(tmp_path)] == ["00000002"]


def test_a_holder_hears_by_itself_that_it_was_taken_over(tmp_path, elsewhere):
    with RunLock(tmp_path, **QUICK).hold() as mine:
        other = elsewhere(tmp_path)
        assert other._create(2)
        for _ in range(200):
            try:
                mine.poll()
            except LockedError as error:
                assert "host-b" in str(error)
                break
            time.sleep(0.02)
        else:
            pytest.fail("the thread never told")
        with pytest.raises(LockedError, match="host-b"):
            mine.check()
    assert [path.name for path in claims(tmp_path)] == ["00000001", "00000002"]


def test_one_that_comes_late_to_a_takeover_steps_back(tmp_path, elsewhere):
    """It found the first dead; meanwhile another came, worked, ended, and a new one began."""
    dead = elsewhere(tmp_path)
    dead._acquire()
    late = RunLock(tmp_path, job="late", lease=0.2, beat=0.05)
    real, held = late._create, []

    def create(number):
        if number == 2 and not held:
            (tmp_path / FOLDER / "00000001").unlink()
            held.append(elsewhere(tmp_path, job="new"))
            held[0]._acquire()
        return real(number)

    late._create = create
    keeper = threading.Thread(target=lambda: held and held[0]._keep_alive())
    with pytest.raises(LockedError, match="host-b"):
        try:
            late._try()  # steps back
            assert [path.name for path in claims(tmp_path)] == ["00000001"]
            keeper.start()
            late._acquire()
        finally:
            held[0]._stop.set()
            keeper.join()
    held[0].check()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    told = pytest.raises(UserError, match=r"file/run cannot be locked .*--config.run_dir")
    with told, RunLock(tmp_path / "file" / "run", **QUICK).hold():
        pass


@pytest.mark.parametrize("instead", ["nothing", "a folder", "a disk"])
def test_a_folder_that_is_taken_away_is_an_error_and_is_not_made_again(tmp_path, instead):
    run, moved = tmp_path / "run", tmp_path / "moved"
    word = {"nothing": "vanished", "a folder": "taken the place", "a disk": "another disk"}[instead]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        with pytest.raises(LockedError, match=word) as error, RunLock(run, **QUICK).hold() as held:
            held.check()
            run.rename(moved)
            if instead == "a folder":
                run.mkdir()
            if instead == "a disk":  # as where a mount was lost, or came back elsewhere
                run.symlink_to(disk)
            held.check()
        assert str(run) in str(error.value)
        assert run.exists() == (instead != "nothing")
        assert instead == "nothing" or not list(run.iterdir())
    assert claims(moved)  # whoever brings it back finds the lock of a dead process
