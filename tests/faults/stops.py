"""A run that is asked to stop saves what it has, and loses no step."""

import random
import shutil
import signal

from tests.faults.count import Count
from tests.faults.runs import Lab, result

RESUME = 75


def stop_at_random(lab: Lab, *, stops: int, seed: int = 0) -> Count:
    """SIGTERM at random instants; the newest checkpoint is of the last step that was logged.

    Every stop is followed by the same command, to the end of the run, which must be the undisturbed
    one bit for bit. A run that ends before its signal does not count.
    """
    from ltu_jax import checkpoint
    from ltu_jax.training.logs import read_rows

    count, generator, chain = Count(), random.Random(seed), 0
    folder, truth, seconds = lab.make_folder("stops"), lab.truth, lab.seconds
    while count.tried < stops:
        run_dir = folder / f"stopped{chain}"
        chain += 1
        while True:
            run = lab.start(run_dir)
            status = run.wait(within=generator.uniform(0, seconds))
            if status is None:
                run.signal(signal.SIGTERM)
                status = run.wait()
            if status == 0:
                break
            steps = checkpoint.steps_in(run_dir)
            log = run_dir / "log.jsonl"
            logged = (
                [row["step"] for row in read_rows(log) if "loss" in row] if log.exists() else []
            )
            lost = max(logged, default=0) - max(steps, default=0)
            if status not in (RESUME, 128 + signal.SIGTERM, -signal.SIGTERM):
                count.add(failed=f"ended with {status}: {run.said()[-600:]}")
            elif lost:
                count.add(failed=f"{lost} steps were logged and not saved: {run.said()[-600:]}")
            else:
                count.add()
            if count.tried >= stops:
                status = lab.start(run_dir).wait()
                break
        differing = truth.differences(result(run_dir)) if status == 0 else [f"status {status}"]
        if differing:
            count.add(failed=f"after stops the run differs in {', '.join(differing[:5])}")
        shutil.rmtree(run_dir, ignore_errors=True)
    return count
