"""The accuracy gate of the int8 base: what it does to the loss of the mini run.

    python -m benchmarks.int8_gate --init-from RUN [--steps 120] [--batches 60] [--out FILE]

Stage 3 of the mini preset is trained from RUN (a stage 2 of `make demo`) once with each kind of
base: float32, bfloat16, int8; same data, same order, same steps. Then the losses of the same
parameters are compared with a bfloat16 and an int8 base, over the same training batches and all
held-out rows: those of RUN, which was trained with neither, and those at the end of both runs,
averaged, because an adapter suits the base that it was trained with. Fails if int8's loss differs
by more than 1 %.

The losses of the runs themselves are printed and stored, not judged: at this learning rate two runs
that differ by a rounding part after some dozen steps. float32 against bfloat16 says by how much.
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
STILL = 1e-30  # a learning rate that leaves every float32 parameter as it is
_LAST = 5  # log rows, each the mean of log.every steps


def run(run_dir: Path, *, kind: str, init_from: str, steps: int, more: list[str]) -> dict[str, Any]:
    """Losses of one run by step, the mean of all and of the last, and the held-out loss."""
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
    losses = [row["loss"] for row in read_rows(run_dir / "log.jsonl") if "loss" in row]
    summary = json.loads((run_dir / train.SUMMARY).read_text())
    return {
        "losses": [round(loss, 5) for loss in losses],
        "batches": float(np.mean(losses)),
        "last": float(np.mean(losses[-max(_LAST, steps // 10) :])),
        "held_out": summary["val_loss"],
        "seconds": summary["seconds"],
    }


def differences(
    small: dict[str, Any], large: dict[str, Any], names: tuple[str, ...]
) -> dict[str, float]:
    """`small` less `large`, in per cent of the latter."""
    return {name: 100 * (small[name] - large[name]) / large[name] for name in names}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8_gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init-from", required=True, metavar="RUN")
    parser.add_argument("--steps", type=int, default=120, help="of training (default 120)")
    parser.add_argument("--batches", type=int, default=60, help="that are compared (default 60)")
    parser.add_argument("--work", type=Path, default=Path("runs/int8_gate"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/int8_gate.json"))
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    given = parser.parse_args()
    more = [f"--config.{pair}" for pair in given.config]
    runs = {
        kind: run(
            given.work / kind, kind=kind, init_from=given.init_from, steps=given.steps, more=more
        )
        for kind in KINDS
    }
    origins = {"start": given.init_from} | {
        kind: str(given.work / kind) for kind in ("bfloat16", "int8")
    }
    still = [*more, f"--config.optimizer.learning_rate={STILL}"]
    same = {
        origin: {
            kind: run(
                given.work / f"{origin}_with_{kind}",
                kind=kind,
                init_from=folder,
                steps=given.batches,
                more=still,
            )
            for kind in ("bfloat16", "int8")
        }
        for origin, folder in origins.items()
    }
    found = {
        origin: differences(losses["int8"], losses["bfloat16"], ("batches", "held_out"))
        for origin, losses in same.items()
    }
    end = {
        name: float(np.mean([found[kind][name] for kind in ("bfloat16", "int8")]))
        for name in ("batches", "held_out")
    }
    worst = max(abs(value) for value in (*found["start"].values(), *end.values()))
    passed = worst <= LIMIT
    own = {
        f"{kind} - bfloat16": differences(
            runs[kind], runs["bfloat16"], ("batches", "last", "held_out")
        )
        for kind in ("int8", "float32")
    }
    write_json(
        given.out,
        {
            "date": datetime.date.today().isoformat(),
            "hardware": processor(),
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "qwix")},
            "steps": given.steps,
            "batches": given.batches,
            "limit_percent": LIMIT,
            "passed": passed,
            "worst_percent": worst,
            "same_parameters_int8_minus_bfloat16_percent": {
                "start": found["start"],
                "end": end,
                "trained_with": {kind: found[kind] for kind in ("bfloat16", "int8")},
            },
            "own_runs_percent": own,
            "runs": runs,
        },
    )
    for name, row in {**own, "same parameters, start": found["start"], "... end": end}.items():
        print(f"{name:<24}" + "".join(f"{key:>12} {value:+7.3f} %" for key, value in row.items()))
    print(
        f"{'passed' if passed else 'FAILED'}: same parameters within {worst:.3f} % "
        f"(limit {LIMIT} %); {given.out}"
    )
    sys.exit(not passed)


if __name__ == "__main__":
    errors.main(main)
