"""Real kills while a folder is replaced: one complete copy survives, and nothing else is left."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ltu_jax.core import files, outputs, staging

ROOT = Path(__file__).resolve().parent.parent.parent
MAKER = outputs.Maker(name="`this test`")
PARTS = ("a", "b", "deep/c")
# Writes version after version until it is killed: at an instant of the parent's choice, or after
# its so-many-th renaming.
CHILD = """
import os, signal, sys
from pathlib import Path
from ltu_jax.core import files, outputs, staging
place, exchange, last = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3])
if not exchange:
    staging._exchange = lambda one, two: False
rename, count = os.rename, 0
def counted(*names):
    global count
    rename(*names)
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
staging.os.rename = counted
print("begun", flush=True)
version = 0
while True:
    version += 1
    with files.atomic_dir(place, outputs.Maker(name="`this test`")) as folder:
        (folder / "deep").mkdir()
        for part in ("a", "b", "deep/c"):
            (folder / part).write_text(str(version))
    files.write_json(place.parent / "value.json", {"version": version})
"""


def _write(place, content):
    with files.atomic_dir(place, MAKER) as folder:
        (folder / "deep").mkdir()
        for part in PARTS:
            (folder / part).write_text(content)


def _killed(place, *, exchange, last=0, seconds=0.0):
    """A child that is killed while it writes; whether `place` had its name then."""
    command = [sys.executable, "-c", CHILD, str(place), str(exchange), str(last)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}
    ) as child:
        assert child.stdout.readline() == "begun\n"
        if not last:
            time.sleep(seconds)
            child.kill()
        assert child.wait(30) == -signal.SIGKILL
    return place.exists()


def _whole(place):
    found = {(place / part).read_text() for part in PARTS}
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_instant_loses_nothing(tmp_path, exchange):
    place = tmp_path / "out"
    _write(place, "first")
    lottery = random.Random(int(exchange))
    for _ in range(6):
        there = _killed(place, exchange=exchange, seconds=lottery.uniform(0, 0.03))
        assert there or not exchange
        outputs.claim(place, MAKER)  # what the next command does first
        assert _whole(place)
    _write(place, "last")
    files.write_json(tmp_path / "value.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"out", "value.json"}
    assert _whole(place) == "last"


@pytest.mark.parametrize(("last", "there"), [(1, False), (2, True)])
def test_a_kill_between_two_renamings_is_put_right(tmp_path, last, there):
    place = tmp_path / "out"
    _write(place, "first")
    assert _killed(place, exchange=False, last=last) == there
    if not there:
        outputs.claim(place, MAKER)
    assert _whole(place) == ("1" if there else "first")
    _write(place, "last")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_work_of_a_living_process_and_foreign_folders_are_let_alone(tmp_path):
    place, begun, done = tmp_path / "out", threading.Event(), threading.Event()
    foreign = [tmp_path / ".tmp-out", tmp_path / ".tmp-out-abc123", tmp_path / ".tmp-other-x"]
    for folder in foreign:
        folder.mkdir()
        (folder / "mine").write_text("mine")

    def slow():
        with files.atomic_file(place) as file:
            begun.set()
            assert done.wait(30)
            file.write_text("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(30)
    with files.atomic_file(place) as file:
        file.write_text("fast")
    staging.clear(tmp_path)
    assert place.read_text() == "fast"
    done.set()
    thread.join(30)
    assert place.read_text() == "slow"
    assert {path.name for path in tmp_path.iterdir()} == {"out", *(one.name for one in foreign)}
    assert all((folder / "mine").read_text() == "mine" for folder in foreign)


def test_names_that_are_long_or_odd(tmp_path):
    for name in ("x" * 255, "ä" * 127, "a[b]*?", "-n", "new line\n", os.fsdecode(b"\xff\xfe")):
        with files.atomic_file(tmp_path / name) as file:
            file.write_text(name, errors="surrogateescape")
        assert (tmp_path / name).is_file()
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("exchange", [True, False])
def test_a_swap_that_fails_puts_everything_back(tmp_path, monkeypatch, exchange):
    place, real = tmp_path / "out", os.rename
    _write(place, "first")

    def broken(one, two):
        if Path(two) == place and Path(one).name == staging.NEW:
            raise OSError(5, "Input/output error", str(two))
        real(one, two)

    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda one, two: False)
        monkeypatch.setattr(staging.os, "rename", broken)
        with pytest.raises(OSError, match="Input/output"):
            _write(place, "second")
        monkeypatch.undo()
        assert _whole(place) == "first"
    else:
        _write(place, "second")
        assert _whole(place) == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
