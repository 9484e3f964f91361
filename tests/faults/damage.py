"""Damage to a file of a checkpoint is found, and the newest good step goes on."""

import contextlib
import io
import os
import random
import shutil
from pathlib import Path

from tests.faults.count import Count
from tests.faults.runs import EVERY, STEPS, Lab, result

# One in so many trials is trained on to the end.
_TO_THE_END = 12


def flip(path: Path, rng: random.Random) -> None:
    """One bit turned over."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def zero(path: Path, rng: random.Random) -> None:
    """A block of zeros."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(max(1, len(content) - 4096))
    block = bytes(min(4096, len(content) - start))
    content[start : start + len(block)] = block
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut somewhere."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def empty(path: Path, rng: random.Random) -> None:
    """Cut at its beginning."""
    del rng
    os.truncate(path, 0)


def delete(path: Path, rng: random.Random) -> None:
    """Gone."""
    del rng
    path.unlink()


DAMAGES = (flip, zero, truncate, empty, delete)


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def damage_checkpoints(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Damage the newest checkpoint of a finished run; every file and every damage takes its turn.

    Passes when the checkpoint is named and set aside, and the step before is the newest good one;
    in one of twelve trials also when the same command then ends with the same bits.
    """
    from ltu_jax.checkpoint import recovery

    count, rng = Count(), random.Random(seed)
    folder, truth = lab.make_folder("damage"), lab.truth
    newest = max(int(path.name) for path in (lab.unbroken / "checkpoints").iterdir())
    files = names(lab.unbroken / "checkpoints" / str(newest))
    cases = [(name, damage) for damage in DAMAGES for name in files]
    rng.shuffle(cases)
    while count.tried < trials:
        name, damage = cases[count.tried % len(cases)]
        run_dir = shutil.copytree(lab.unbroken, folder / f"run{count.tried}")
        target = run_dir / "checkpoints" / str(newest) / name
        before = target.read_bytes()
        damage(target, rng)
        if target.exists() and target.read_bytes() == before:  # zeros may be zeros already
            damage = flip
            damage(target, rng)
        where = f"{damage.__name__} of {name}"
        if count.tried % _TO_THE_END == 0:
            run = lab.start(run_dir)
            status = run.wait()
            told, differing = run.said(), truth.differences(result(run_dir))
            wrong = f"ended with {status}: {told[-600:]}" if status else ", ".join(differing[:5])
            if f"{newest} is damaged: " not in told:
                wrong = wrong or f"nothing was said: {told[-600:]}"
        else:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                good = recovery.newest_good(run_dir)
            wrong = "" if good == STEPS - EVERY else f"the newest good step is {good}"
            if f"{newest} is damaged: " not in said.getvalue():
                wrong = wrong or f"nothing was said: {said.getvalue()}"
        if not (run_dir / "checkpoints" / f"{newest}.damaged-1").is_dir():
            wrong = wrong or "it was not set aside"
        count.add(failed=f"{where}: {wrong}" if wrong else None)
        shutil.rmtree(run_dir)
    return count
