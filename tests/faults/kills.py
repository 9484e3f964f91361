"""A run that is killed at any instant, and started again, is the run that nobody disturbed."""

import random
import shutil
import signal

from tests.faults.count import Count
from tests.faults.runs import Lab, result

# Starts after which a run that is killed again and again is let go on to its end.
_PATIENCE = 6


def kill_at_random(lab: Lab, *, kills: int, seed: int = 0) -> Count:
    """SIGKILL at random instants of a run's life, the same command again, to its end.

    Every third kill waits for a save to begin (a temporary folder) and falls within it. A chain of
    kills passes when the finished run is the undisturbed one, bit for bit: parameters, optimiser
    state, step, and every logged loss.
    """
    count, generator, chain = Count(), random.Random(seed), 0
    folder, truth, seconds = lab.make_folder("kills"), lab.truth, lab.seconds
    while count.tried < kills:
        run_dir, in_chain = folder / f"killed{chain}", 0
        while True:
            run = lab.start(run_dir)
            if in_chain >= _PATIENCE or count.tried + in_chain >= kills:
                status = run.wait()
                break
            if (count.tried + in_chain) % 3 == 2:
                status = _end_in_a_save(run, generator, seconds)
            else:
                status = run.wait(within=generator.uniform(0, seconds))
            if status is not None:
                break
            if run.kill() == -signal.SIGKILL:
                in_chain += 1
        where = f"chain {chain} of {in_chain} kills (seed {seed})"
        if status != 0:
            count.add(in_chain, failed=f"{where}: ended with {status}: {run.said()[-600:]}")
        elif differing := truth.differences(result(run_dir)):
            count.add(in_chain, failed=f"{where}: differs in {', '.join(differing[:5])}")
        else:
            count.add(in_chain)
        shutil.rmtree(run_dir)
        chain += 1
    return count


def _end_in_a_save(run, generator: random.Random, seconds: float) -> int | None:
    """Wait until a save is under way, then a random part of one; the status if the run ended."""
    for _ in range(int(seconds * 200)):
        status = run.wait(within=0.01)
        if status is not None:
            return status
        if any((run.folder / "checkpoints").glob(".tmp-*")):
            return run.wait(within=generator.uniform(0, 0.3))
    return None
