"""The accuracy gate of the int8 base: the mini run with it and without, and the losses compared.

    python -m benchmarks.int8_gate --init-from RUN [--steps 120] [--out FILE]

Trains stage 3 of the mini preset from RUN (a stage 2 of `make demo`) once for each kind of base:
float32, bfloat16, int8; same data, same order, same steps. Fails if int8's loss, over the last
steps or on held-out rows, is further than 1 % from bfloat16's.
"""

import argparse
import datetime
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.certificate import processor
from ltu_jax import train
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.training.logs import read_rows

KINDS = ("float32", "bfloat16", "int8")
LIMIT = 1.0  # per cent
_LAST = 5  # log rows, each the mean of log.every steps


def curve(
    kind: str, *, init_from: str, steps: int, folder: Path, more: list[str]
) -> dict[str, Any]:
    """Losses of one run by step, the mean of the last ones, and the held-out loss."""
    run_dir = folder / kind
    shutil.rmtree(run_dir, ignore_errors=True)
    code = train.main(
        [
            "--config=configs/stage3.py:mini",
            f"--config.init_from={init_from}",
            f"--config.run_dir={run_dir}",
            f"--config.steps={steps}",
            f"--config.compute.base_dtype={kind}",
            f"--config.optimizer.warmup_steps={min(10, steps // 2)}",
            "--config.log.samples=0",
            "--config.log.every=1",
            "--config.checkpoint.every=0",
            *more,
        ]
    )
    if code:
        raise errors.UserError(f"the {kind} run was stopped (exit code {code}); run it again")
    rows = [(row["step"], row["loss"]) for row in read_rows(run_dir / "log.jsonl") if "loss" in row]
    summary = json.loads((run_dir / train.SUMMARY).read_text())
    return {
        "losses": [round(loss, 5) for _, loss in rows],
        "last": float(np.mean([loss for _, loss in rows[-max(_LAST, steps // 10) :]])),
        "held_out": summary["val_loss"],
        "seconds": summary["seconds"],
    }


def differences(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """int8 against each other kind, in per cent of the other's loss."""
    small = found["int8"]
    return {
        kind: {
            name: 100 * (small[name] - found[kind][name]) / found[kind][name]
            for name in ("last", "held_out")
        }
        for kind in found
        if kind != "int8"
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8_gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init-from", required=True, metavar="RUN")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--work", type=Path, default=Path("runs/int8_gate"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/int8_gate.json"))
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    given = parser.parse_args()
    more = [f"--config.{pair}" for pair in given.config]
    found = {
        kind: curve(
            kind, init_from=given.init_from, steps=given.steps, folder=given.work, more=more
        )
        for kind in KINDS
    }
    compared = differences(found)
    for kind in KINDS:
        row = found[kind]
        print(f"{kind:<9} last steps {row['last']:.4f}  held out {row['held_out']:.4f}")
    for kind, row in compared.items():
        print(f"int8 - {kind:<9} {row['last']:+.3f} %  held out {row['held_out']:+.3f} %")
    worst = max(abs(difference) for difference in compared["bfloat16"].values())
    passed = worst <= LIMIT
    write_json(
        given.out,
        {
            "date": datetime.date.today().isoformat(),
            "hardware": processor(),
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "qwix")},
            "steps": given.steps,
            "limit_percent": LIMIT,
            "passed": passed,
            "int8_minus_percent": compared,
            "runs": found,
        },
    )
    print(
        f"{'passed' if passed else 'FAILED'}: within {worst:.3f} % (limit {LIMIT} %); {given.out}"
    )
    sys.exit(not passed)


if __name__ == "__main__":
    errors.main(main)
