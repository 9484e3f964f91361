"""A run that stands still ends itself and says where; one that goes on is left alone."""

import threading

from tests.faults.count import Count
from tests.faults.runs import STEPS, Lab

_STALLED = 70
_LIMITS = ("--config.guards.stall_seconds=2", "--config.guards.stall_busy_seconds=120")


def get_stuck(after: int) -> None:
    """Let every input pipeline of this process stop for ever after so many batches."""
    from data_pipelines.input.pipeline import InputPipeline

    batches = InputPipeline.batches

    def stuck_batches(self, *positional, **named):
        for number, batch in enumerate(batches(self, *positional, **named)):
            if number == after:
                threading.Event().wait()
            yield batch

    InputPipeline.batches = stuck_batches


def stand_still(lab: Lab, *, trials: int) -> Count:
    """Every second run gets no batch any more, after one to all but one of its batches.

    Passes when that ends with status 70 and the stacks of its threads in a file, and when the
    others end as if there were no watchdog.
    """
    count, folder = Count(), lab.make_folder("stalls")
    for trial in range(trials):
        run_dir, stuck = folder / f"run{trial}", trial % 2 == 0
        after = 1 + trial // 2 % (STEPS - 1)
        inject = ("tests.faults.stalls", "get_stuck", after) if stuck else None
        run = lab.start(run_dir, *_LIMITS, inject=inject)
        status, report = run.wait(), run_dir / "stall-0.txt"
        stacks = report.read_text() if report.exists() else ""
        fine = (status, "stuck_batches" in stacks) == ((_STALLED, True) if stuck else (0, False))
        what = f"without batch {after}" if stuck else "undisturbed"
        count.add(failed=None if fine else f"{what}: {status}, {stacks[:200]}: {run.said()[-600:]}")
    return count
