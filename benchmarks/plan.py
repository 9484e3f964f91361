"""Make the committed plans again: stage 3 by every preset of configs/slice_presets.py.

    python -m benchmarks.plan [PRESET ... | single_rows_v5e-16]

Writes benchmarks/results/plan_PRESET.json; single_rows_v5e-16.json is a preset with one pair a row,
which docs/data.md holds against grouped rows, and does not fit. A slice is compiled for, which
takes one to two minutes and 4 GB on two idle cores; a GPU is planned by arithmetic.
"""

import subprocess
import sys
from pathlib import Path

from configs.slice_presets import TABLE
from ltu_jax.core.hardware import GPUS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VARIANTS = {
    "single_rows_v5e-16": (
        "v5e-16",
        "--config.data.layout=single",
        "--config.data.rows_per_batch=256",
    )
}


def main(names: list[str]) -> int:
    """Make the named plans, or all; 1 if one of them does not fit."""
    status = 0
    for name in names or (*TABLE, *VARIANTS):
        target = RESULTS / (f"{name}.json" if name in VARIANTS else f"plan_{name}.json")
        command = (sys.executable, "-m", "ltu_jax.plan", *arguments(name))
        status |= subprocess.run(
            (*command, "--json", str(target)), cwd=ROOT, check=False
        ).returncode
    return status


def arguments(name: str) -> tuple[str, ...]:
    """Return the arguments of `python -m ltu_jax.plan` for the plan of a preset or variant."""
    preset, *changes = VARIANTS.get(name, (name,))
    machine = TABLE[preset].machine
    option = "--gpu" if machine in GPUS else "--slice"
    return f"--config=configs/stage3.py:{preset}", option, machine, *changes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
