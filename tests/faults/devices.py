"""A run goes on with another number of devices: the same rows, the same losses."""

import itertools

import numpy as np

from tests.faults.count import Count
from tests.faults.runs import EVERY, Lab, result

_DEVICES = (1, 2, 4, 8)
_TOLERANCE = 1e-5


def change_devices(lab: Lab, *, trials: int) -> Count:
    """Kill a run after a save and go on with another number of devices; every change of 1, 2, 4, 8.

    Passes when every logged loss is within 1e-5 of that of one device that nobody disturbed. Where
    both numbers are 1, all bits must be the same.
    """
    count, folder, truth = Count(), lab.make_folder("devices"), lab.truth
    changes = sorted(itertools.product(_DEVICES, repeat=2), key=lambda pair: pair[0] == pair[1])
    for trial in range(trials):
        before, after = changes[trial % len(changes)]
        run_dir = folder / f"run{trial}"
        first = lab.start(run_dir, devices=before)
        while first.wait(within=0.01) is None:
            if (run_dir / "checkpoints" / str(2 * EVERY)).is_dir():
                first.kill()
        again = lab.start(run_dir, devices=after)
        where, status = f"{before} devices, then {after}", again.wait()
        if status != 0:
            count.add(failed=f"{where}: ended with {status}: {again.said()[-600:]}")
            continue
        found = result(run_dir)
        steps = sorted(truth.losses)
        losses = np.array([[one.losses.get(step, np.nan) for step in steps]
                           for one in (truth, found)])  # fmt: skip
        away = np.abs(losses[1] / losses[0] - 1).max()
        fine = away <= _TOLERANCE  # False for NaN
        if before == after == 1:
            fine = fine and not truth.differences(found)
        count.add(failed=None if fine else f"{where}: losses differ by {away:.2g}")
    return count
