"""A disk that gets full, or read-only, under a run: an error at once, and nothing lost."""

import contextlib
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.count import Count
from tests.faults.runs import EVERY, Lab, result

_MEGABYTES = 40
_LOOKS = 2000
_WRONG_INPUT = 2


class NoRights(Exception):
    """This user may not mount a disk."""


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A tmpfs of its own.

    Raises:
        NoRights: mounting needs root.
    """
    place.mkdir()
    options = f"size={_MEGABYTES}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoRights(done.stderr.strip())
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below a folder can be created, changed or deleted; files that are open stay so.

    Raises:
        NoRights: the folder stays writable.
    """
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        command = ["mount", "-o", "remount,bind,ro", str(folder)]
        for _ in range(_LOOKS):  # busy while a file is open for writing
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
            time.sleep(0.001)
        else:
            raise NoRights(done.stderr.strip())
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    try:
        yield
    finally:
        ballast.unlink()


def lose_the_disk(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Fill the disk of a run, or make it read-only, at a random instant after its first save.

    Passes when training ends within one save interval with exit status 2 and one error that names
    a file of the run, the newest checkpoint is good, and with room again the same command ends
    with the bits of an undisturbed run. A run that ends before does not count.
    """
    from ltu_jax.checkpoint import recovery

    count, generator, number = Count(), random.Random(seed), 0
    folder, truth, seconds = lab.make_folder("disks"), lab.truth, lab.seconds
    while count.tried < trials:
        number += 1
        what, fault = (("a full disk", full), ("a read-only folder", read_only))[count.tried % 2]
        with small_disk(folder / f"disk{number}") as disk:
            run_dir, log = disk / "run", folder / f"run{number}.log"
            run = lab.start(run_dir, log=log)
            while run.wait(within=0.01) is None and not _saved(run_dir):
                pass
            if run.wait(within=generator.uniform(0, seconds / 4)) is not None:
                continue
            with fault(disk if fault is full else run_dir / "checkpoints"):
                status, told = run.wait(), run.said()
            if status == 0:
                continue
            good = recovery.newest_good(run_dir)
            wrong = _judge(status, told, run_dir=run_dir, good=good)
            if not wrong:
                status = lab.start(run_dir, log=log).wait()
                differing = truth.differences(result(run_dir)) if status == 0 else [f"{status=}"]
                wrong = ", ".join(differing[:5])
            count.add(failed=f"{what}: {wrong}" if wrong else None)
    return count


def _saved(run_dir: Path) -> bool:
    folder = run_dir / "checkpoints"
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def _judge(status: int, told: str, *, run_dir: Path, good: int | None) -> str:
    # Threads of Orbax may print stacks of their own, even into the middle of our line.
    errors = re.findall(r"error: (/.*)", told)
    if status != _WRONG_INPUT or len(errors) != 1:
        return f"ended with {status}: {told[-900:]}"
    if str(run_dir) not in errors[0]:
        return f"no file of the run is named: {errors[0]}"
    if good is None:
        return "no good checkpoint is left"
    failed = re.search(r"checkpoints/(\d+) could not be written", errors[0])
    if failed and int(failed[1]) > good + EVERY:
        return f"the failed save is of step {failed[1]}, the newest good one of {good}"
    return ""
