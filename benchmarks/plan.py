"""Make the committed plans again: full-size stage 3 for each slice, with the TPU compiler.

    python benchmarks/plan.py [v5e-16 v5e-64 ...]

Writes benchmarks/results/plan_SLICE.json. Each takes one to two minutes and 4 GB on two idle cores.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

STAGE3 = (
    "--config=configs/stage3.py",
    "--text-length=80",
    "--config.data.rows_per_batch=256",
    "--config.compute.encoder_dtype=bfloat16",
)
WHOLE = ("--config.mesh.data=-1", "--config.mesh.fsdp=1")
# What is fastest of what fits, by --search on the slices with little memory.
SLICES = {
    "v5e-16": ("--config.mesh.data=1", "--config.mesh.fsdp=16",
               "--config.compute.remat=dots_with_no_batch_dims_saveable"),
    "v5e-64": ("--config.mesh.data=4", "--config.mesh.fsdp=16",
               "--config.compute.remat=dots_with_no_batch_dims_saveable"),
    "v4-32": (*WHOLE, "--config.compute.remat=dots_with_no_batch_dims_saveable"),
    "v5p-16": (*WHOLE, "--config.compute.remat=dots_with_no_batch_dims_saveable"),
    "v6e-16": (*WHOLE, "--config.compute.remat=dots_with_no_batch_dims_saveable"),
}  # fmt: skip


def main(names: list[str]) -> int:
    """Plan the named slices, or all; 1 if one of them does not fit."""
    status = 0
    for name in names or SLICES:
        target = RESULTS / f"plan_{name}.json"
        command = (sys.executable, "-m", "ltu_jax.plan", "--slice", name, *STAGE3, *SLICES[name])
        status |= subprocess.run(
            (*command, "--json", str(target)), cwd=ROOT, check=False
        ).returncode
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
