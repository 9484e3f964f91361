"""Two processes that differ, from the start or from some step on: found before the next step."""

import itertools
import re

from tests.faults.count import Count
from tests.faults.runs import ROOT, Lab
from tests.support import tiny_stage

# What process 1 does on its own, the steps that are then begun, and what both must say.
_KINDS = {
    "parameter": (0, "trained parameters are not the same on all devices after 0 steps: "
                  "audio_proj.bias, on process 1 other than on the first device that holds them"),
    "later": (2, "trained parameters are not the same on all devices after 2 steps: "
              "audio_proj.bias, on process 1 other than on the first device that holds them"),
    "order": (0, r"the 2 processes of this run differ: order of the data is \w{16} on process "
              r"0 and \w{16} on process 1; "),
    "rows": (0, r"the 2 processes of this run differ: rows of the next step is \w{16} on process "
             r"0 and \w{16} on process 1; "),
}  # fmt: skip
_CONFIG = (
    "error: the 2 processes of this run differ: stage3: config.optimizer.learning_rate is "
    "0.5 on process 0 and 0.25 on process 1; start the same command on every host"
)
# Commands with another config on each process; the rest are of `_KINDS`.
_ONE_IN = 4


def disagree(lab: Lab, *, trials: int) -> Count:
    """One bit of a parameter at the start or after two steps, order, rows or a config of its own.

    Passes when both processes end with the same message, which names what differs, before the next
    step and without a checkpoint.
    """
    count, folder = Count(), lab.make_folder("hosts")
    configs = max(1, trials // _ONE_IN)
    for number in range(configs):
        count.add(failed=_configs_differ(lab, folder / f"config{number}"))
    kinds = list(itertools.islice(itertools.cycle(_KINDS), trials - configs))
    runs = [(kind, folder / f"{kind}{number}") for number, kind in enumerate(kinds)]
    told = _go_own_ways(lab, runs)
    for (kind, run_dir), *lines in zip(runs, *told, strict=True):
        steps, message = _KINDS[kind]
        right = all(re.match(f"{kind}: {steps} steps: {message}", line) for line in lines)
        right = right and len(set(lines)) == 1 and not list(run_dir.glob("checkpoints/*"))
        count.add(failed=None if right else f"{kind}: {lines}")
    return count


def _configs_differ(lab: Lab, run_dir) -> str | None:
    commands = [
        ["-m", "ltu_jax.train", *tiny_stage.arguments(
            lab.place, run_dir, f"--config.optimizer.learning_rate={rate}"
        )]
        for rate in (0.5, 0.25)
    ]  # fmt: skip
    ended = tiny_stage.processes(*commands, devices=1)
    for process in ended:
        errors = [line for line in process.stderr.splitlines() if line.startswith("error:")]
        if process.returncode != 2 or errors != [_CONFIG] or run_dir.exists():
            return f"config: {process.returncode}: {process.stderr[-600:]}"
    return None


def _go_own_ways(lab: Lab, runs) -> list[list[str]]:
    """The line that each of the two processes printed for each run."""
    asked = [part for kind, run_dir in runs for part in (kind, str(run_dir))]
    command = [
        str(ROOT / "tests" / "faults" / "disagree.py"),
        *asked,
        "--",
        *tiny_stage.arguments(
            lab.place,
            lab.place,
            "--config.guards.compare_every=1",
            "--config.mesh.data=2",
            "--config.mesh.tensor=1",
            "--config.checkpoint.every=0",
            "--config.log.validate_batches=0",
        ),
    ]
    ended = tiny_stage.processes(command, command, devices=2, seconds=60 + 60 * len(runs))
    for process in ended:
        if process.returncode:
            raise RuntimeError(process.stderr[-3000:])
    starts = tuple(f"{kind}: " for kind in _KINDS)
    return [
        [line for line in process.stdout.splitlines() if line.startswith(starts)]
        for process in ended
    ]
