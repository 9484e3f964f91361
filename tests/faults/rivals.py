"""Two trainers in one run folder: one trains, the other stops by name and destroys nothing."""

import random
import shutil
import signal
import time

from tests.faults.count import Count
from tests.faults.runs import Lab, Run, result

LEASE, BEAT = 2.0, 0.1
_REFUSED = 2
HASTEN = ("tests.faults.rivals", "hasten", LEASE)


def hasten(lease: float) -> None:
    """Let locks of this process run out after `lease` seconds instead of 40."""
    from ltu_jax.core.lock import RunLock

    RunLock.__init__.__kwdefaults__.update(lease=lease, beat=BEAT)


def two_at_once(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Start the same command twice, or put a trainer to sleep and let another take over.

    Starts are 0 to 50 ms apart. A trial passes when one of them ends well with the bits of an
    undisturbed run, and the other with one line that names the one that has the folder.
    """
    count, draw = Count(), random.Random(seed)
    folder, truth = lab.make_folder("rivals"), lab.truth
    for trial in range(trials):
        run_dir = folder / f"shared{trial}"
        logs = [folder / f"shared{trial}.{name}.log" for name in "ab"]
        first = lab.start(run_dir, log=logs[0], inject=HASTEN)
        if trial % 2:
            _sleep_in_training(first)
        else:
            time.sleep(draw.uniform(0, 0.05))
        second = lab.start(run_dir, log=logs[1], inject=HASTEN)
        statuses = {second: second.wait()}
        first.signal(signal.SIGCONT)
        statuses[first] = first.wait()
        failed = judge(statuses)
        if not failed and (differing := truth.differences(result(run_dir))):
            failed = f"differs in {', '.join(differing[:5])}"
        count.add(failed=failed and f"trial {trial} (seed {seed}): {failed}")
        shutil.rmtree(run_dir, ignore_errors=True)
    return count


def _sleep_in_training(run: Run) -> None:
    while not (run.folder / "log.jsonl").exists() and run.wait(within=0.01) is None:
        pass
    run.signal(signal.SIGSTOP)


def judge(statuses: dict[Run, int | None]) -> str | None:
    """Say what is wrong with the ends of two trainers; None if one stopped by name."""
    if sorted(map(str, statuses.values())) != ["0", str(_REFUSED)]:
        told = " | ".join(run.said()[-400:] for run in statuses)
        return f"ended with {list(statuses.values())}: {told}"
    (loser,) = (run for run, status in statuses.items() if status == _REFUSED)
    (winner,) = (run for run, status in statuses.items() if status == 0)
    last = loser.said().strip().splitlines()[-1]
    if last.startswith("error: ") and f"process {winner.pid} on host" in last:
        return None
    return f"the loser said {last!r}"
