"""Where the time of a run went is told, and a run that was killed is soon at work again."""

import random
import signal
import time

from tests.faults.count import Count
from tests.faults.runs import Lab

# Seconds from the start to the first step, programs compiled before; and of clocks that differ.
_SOON, _SLACK = 60.0, 0.1


def account_for_time(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Kill a run at a random instant, go on, and look at the last row that the second one logged.

    Passes when it has every part, they sum up to no more than the time from outside, goodput is the
    share of the steps, and start, restore and compilation took at most a minute. A run that was
    killed after its last step does not count.
    """
    from ltu_jax.training.logs import read_rows
    from ltu_jax.training.resilience.goodput import PARTS

    count, generator, number = Count(), random.Random(seed), 0
    folder, seconds = lab.make_folder("accounting"), lab.seconds
    while count.tried < trials:
        run_dir, number = folder / f"run{number}", number + 1
        run = lab.start(run_dir)
        if run.wait(within=generator.uniform(0, seconds)) is not None:
            continue
        if run.kill() != -signal.SIGKILL:
            continue
        earlier = len(_timed(read_rows(run_dir / "log.jsonl")))
        begin = time.monotonic()
        status = lab.start(run_dir).wait()
        wall = time.monotonic() - begin
        rows = _timed(read_rows(run_dir / "log.jsonl"))
        if status == 0 and len(rows) == earlier:  # nothing was left to do
            continue
        if status != 0:
            count.add(failed=f"ended with {status}")
            continue
        parts, goodput = rows[-1]["seconds_of"], rows[-1]["goodput"]
        total = sum(parts.values())
        before = sum(parts[part] for part in ("start", "restore", "compile"))
        fine = set(parts) == set(PARTS) and total <= wall + _SLACK and before <= _SOON
        fine = fine and abs(goodput - parts["step"] / total) < 1e-3
        where = f"{parts} sum to {total:.3f} of {wall:.3f} s, goodput {goodput}"
        count.add(failed=None if fine else where)
    return count


def _timed(rows: list[dict]) -> list[dict]:
    return [row for row in rows if "seconds_of" in row]
