"""The same promises for a run folder in a bucket, without rename, append and file lock."""

import random
import signal
import time

from ltu_jax.core.paths import as_path
from tests.faults.count import Count
from tests.faults.rivals import HASTEN, judge
from tests.faults.runs import Lab, Run, result
from tests.support import bucket

_IN_A_ROW = 3  # kills of one run before it may go on to its end
_SAVE = 1.5  # seconds; about what a save to the emulator takes


def kill_in_saves(lab: Lab, *, kills: int, seed: int = 0) -> Count:
    """SIGKILL while a checkpoint is written to a bucket, the same command again, to its end.

    The records are read from the bucket too. A chain of kills passes when the finished run is the
    undisturbed one, bit for bit, and nothing is left of the saves that were cut off.
    """
    count, draw, chain = Count(), random.Random(seed), 0
    folder, truth = lab.make_folder("bucket-kills"), lab.truth
    with bucket.served() as storage:
        records = storage.take(lab.place / "records", "records")
        while count.tried < kills:
            name, killed = f"runs/killed{chain}", 0
            run_dir, log = as_path(f"gs://{bucket.NAME}/{name}"), folder / f"killed{chain}.log"
            while True:
                run = lab.start(run_dir, f"--config.data.records={records}", log=log)
                if killed < min(_IN_A_ROW, kills - count.tried):
                    status = _wait_for_a_save(run, storage, name)
                    time.sleep(draw.uniform(0, _SAVE) if status is None else 0)
                else:
                    status = run.wait()
                if status is not None or run.kill() != -signal.SIGKILL:
                    status = run.wait()
                    break
                killed += 1
            where = f"chain {chain} of {killed} kills (seed {seed})"
            if status != 0:
                failed = f"{where}: ended with {status}: {run.said()[-600:]}"
            elif differing := truth.differences(result(run_dir)):
                failed = f"{where}: differs in {', '.join(differing[:5])}"
            else:
                left = [one for one in storage.names() if ".tmp-" in one or "/.lock/" in one]
                failed = f"{where}: left {left[:3]}" if left else None
            count.add(killed, failed=failed)
            chain += 1
    return count


def _wait_for_a_save(run: Run, storage: bucket.Memory, name: str) -> int | None:
    """Wait until a new save is under way; the status if the run has ended before."""
    before = {one for one in storage.names() if ".tmp-" in one}
    while (status := run.wait(within=0.01)) is None:
        if any(".tmp-" in one and one.startswith(name) for one in set(storage.names()) - before):
            return None
    return status


def two_at_once(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Start the same command twice on one run folder in a bucket, 0 to 50 ms apart.

    A trial passes when one of them ends well with the bits of an undisturbed run, and the other
    with one line that names the one that has the folder.
    """
    count, draw = Count(), random.Random(seed)
    folder, truth = lab.make_folder("bucket-rivals"), lab.truth
    with bucket.served():
        for trial in range(trials):
            run_dir = as_path(f"gs://{bucket.NAME}/runs/shared{trial}")
            runs = []
            for name in "ab":
                runs.append(lab.start(run_dir, log=folder / f"{trial}.{name}.log", inject=HASTEN))
                time.sleep(draw.uniform(0, 0.05))
            failed = judge({run: run.wait() for run in runs})
            if not failed and (differing := truth.differences(result(run_dir))):
                failed = f"differs in {', '.join(differing[:5])}"
            count.add(failed=failed and f"trial {trial} (seed {seed}): {failed}")
    return count
