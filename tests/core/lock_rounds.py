"""Processes that want one lock at about the same time: `lock_rounds.py FOLDER ROUNDS SEED [GS]`.

The lock is below FOLDER, or below the address GS. Prints a line a round: whether it was held until
all others had asked, how many held it, were refused by name, and met another holder inside.
"""

import os
import random
import sys
import time
from pathlib import Path

import tensorstore  # noqa: F401  (once, before the forks)

from ltu_jax.core.lock import LockedError, RunLock

HELD, REFUSED, TWO = range(3)
OTHERS = 2


def child(folder: Path, *, locked: str, delay: float, patient: bool) -> int:
    """Wait, take the lock, and look whether anybody else is inside."""
    time.sleep(delay)
    try:
        with RunLock(locked, job="round", lease=30.0, beat=5.0).hold() as lock:
            try:
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return TWO
            while patient and len(list(folder.glob("refused-*"))) < OTHERS:
                time.sleep(0.002)
            lock.check()
            os.unlink(folder / "inside")
            return HELD
    except LockedError as error:
        assert "is in use by process" in str(error), error
        (folder / f"refused-{os.getpid()}").touch()
        return REFUSED


def stale(locked: str) -> None:
    """Leave the claim of a process that was killed."""
    pid = os.fork()
    if not pid:
        with RunLock(locked, job="killed", lease=30.0, beat=5.0).hold():
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)


def main(folder: str, rounds: int, seed: int, address: str = "") -> None:
    """Play the rounds; in every second one a killed process has left its claim."""
    draw = random.Random(seed)
    for number in range(rounds):
        place = Path(folder) / str(number)
        place.mkdir()
        locked = f"{address or folder}/{number}"
        if number % 2:
            stale(locked)
        patient = number % 4 > 1
        delays = [draw.choice((0.0, draw.uniform(0, 0.05))) for _ in range(1 + OTHERS)]
        children = []
        for delay in delays:
            pid = os.fork()
            if not pid:
                os._exit(child(place, locked=locked, delay=delay, patient=patient))
            children.append(pid)
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(patient, *(ends.count(kind) for kind in (HELD, REFUSED, TWO)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
