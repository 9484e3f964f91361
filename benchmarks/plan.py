"""Make the committed plans again: stage 3 as it is configured for each slice, by the TPU compiler.

    python benchmarks/plan.py [NAME ...]

Writes benchmarks/results/plan_NAME.json. Each takes one to two minutes and 4 GB on two idle cores.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

STAGE3 = "--config=configs/stage3.py"
INT8 = ("--config.compute.base_dtype=int8",)
# About the official batch of 256 pairs. Rows shorter than the config's where chips are more than
# rows: 334 text tokens and the audio of two clips are three blocks of 128.
HALF = ("--config.data.row_tokens=334", "--config.data.rows_per_batch=64")
# A row for each pair, batches of like length.
SINGLE = ("--config.data.layout=single", "--config.data.rows_per_batch=256")
PLANS = {
    "v5e-16": ("v5e-16", *INT8),
    "v5e-16_single": ("v5e-16", *INT8, *SINGLE),
    "v5e-64": ("v5e-64", *INT8, *HALF),
    "v4-32": ("v4-32", *INT8),
    "v4-32_bfloat16": ("v4-32",),
    "v5p-16": ("v5p-16",),
    "v6e-16": ("v6e-16",),
}


def main(names: list[str]) -> int:
    """Make the named plans, or all; 1 if one of them does not fit."""
    status = 0
    for name in names or PLANS:
        target = RESULTS / f"plan_{name}.json"
        command = (sys.executable, "-m", "ltu_jax.plan", *arguments(name))
        status |= subprocess.run(
            (*command, "--json", str(target)), cwd=ROOT, check=False
        ).returncode
    return status


def arguments(name: str) -> tuple[str, ...]:
    """Return the arguments of `python -m ltu_jax.plan` for a committed plan."""
    tpu, *options = PLANS[name]
    return STAGE3, "--slice", tpu, *options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
