"""Make the committed plans again: stage 3 by every preset of configs/slice_presets.py.

    python -m benchmarks.plan [PRESET ... | single_rows_v5e-16]
    python -m benchmarks.plan --check v5e-16

Writes benchmarks/results/plan_PRESET.json; single_rows_v5e-16.json is a preset with one pair a row,
which docs/data.md holds against grouped rows, and does not fit. A slice is compiled for, which
takes one to two minutes and 4 GB on two idle cores; a GPU is planned by arithmetic. With --check
nothing is written: the figures must not be worse than the committed ones.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
# How much of a committed figure a step may need when it is compiled anew,
_MOST = {"est_step_seconds": 1.02, "peak_bytes_per_chip": 1.03}
# and what it may need whatever was committed: bytes of a chip,
_BOUNDS = {"v5e-16": {"peak_bytes_per_chip": 14.5e9}}
_MOST_RESIDENT = 4e9  # and of the compiling process, unless a committed plan needed more.


def main(argv: Sequence[str]) -> int:
    """Make or check the named plans, or all; 1 if one does not fit, or became worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan")
    parser.add_argument("names", nargs="*", default=[*TABLE, *VARIANTS], metavar="PRESET")
    parser.add_argument("--check", action="store_true", help="compare with the committed plans")
    options = parser.parse_args(argv)
    return max([(check if options.check else make)(name) for name in options.names])


def make(name: str) -> int:
    """Write the plan of a preset or variant; 1 if it does not fit."""
    return _run(name, _committed(name))


def check(name: str) -> int:
    """Compile the step of a preset and name what became worse; 1 if something has."""
    committed = json.loads(_committed(name).read_text())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "plan.json"
        status = _run(name, target)
        if status and (committed["fits"] or not target.is_file()):
            return status
        made = json.loads(target.read_text())
    limits = {figure: most * committed[figure] for figure, most in _MOST.items()}
    for figure, bound in _BOUNDS.get(name, {}).items():
        limits[figure] = min(bound, limits.get(figure, bound))
    resident = "compile_resident_bytes"
    limits[resident] = max(_MOST_RESIDENT, committed[resident])
    limits |= {"flops_per_device": 1.05 * made["hand_flops_per_device"]}
    worse = [figure for figure, limit in limits.items() if made[figure] > limit]
    for figure in worse:
        print(f"{name}: {figure} is {made[figure]:.6g}, at most {limits[figure]:.6g}")
    for library in ("jax", "libtpu"):
        if made["versions"][library] != committed["versions"][library]:
            worse.append(library)
            print(f"{name} was committed with another {library}: python -m benchmarks.plan {name}")
    return 1 if worse else 0


def _committed(name: str) -> Path:
    return RESULTS / (f"{name}.json" if name in VARIANTS else f"plan_{name}.json")


def _run(name: str, target: Path) -> int:
    command = (sys.executable, "-m", "ltu_jax.plan", *arguments(name), "--json", str(target))
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def arguments(name: str) -> tuple[str, ...]:
    """Return the arguments of `python -m ltu_jax.plan` for the plan of a preset or variant."""
    preset, *changes = VARIANTS.get(name, (name,))
    machine = TABLE[preset].machine
    option = "--gpu" if machine in GPUS else "--slice"
    return f"--config=configs/stage3.py:{preset}", option, machine, *changes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
