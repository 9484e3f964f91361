"""What grouping costs: mini trainings with one pair a row against the default, grouped rows.

    python -m benchmarks.grouping --init-from RUN --data data/mini [--seeds 0 1 2] [--out FILE]

Stage 3 of the mini preset is trained from RUN (a stage 2 of `make demo`) with each layout and seed:
the same number of pairs a step and of steps. "grouped" is the preset's default (two pairs share a
clip's audio), "single" has a row for each pair. Then each model's loss over all held-out pairs is
computed in the same way (one pair a row), and the mini benchmark is asked in joint mode.

Every training and every evaluation can be interrupted: run again, what is finished is kept.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import alternate
from benchmarks.fixed_stage import batches_with_clips, open_fixed
from ltu_jax.core import errors
from ltu_jax.core.files import read_json, write_json
from ltu_jax.models.text_batch import TARGET_IDS
from ltu_jax.preprocessing.text import IGNORE

PAIRS = 8  # of a step, as the preset has it: 4 rows of 2 pairs
LAYOUTS = {
    "grouped": (),
    "single": (
        "--config.data.layout=single",
        f"--config.data.rows_per_batch={PAIRS}",
        "--config.data.lengths=(64, 80, 108)",
    ),
}


def command(arguments: list[str]) -> None:
    """Run `python -m` with these arguments.

    Raises:
        UserError: it failed; its message is above.
    """
    if subprocess.run([sys.executable, "-m", *arguments], check=False).returncode:
        raise errors.UserError(
            f"python -m {' '.join(arguments[:2])} ... failed; its message is above"
        )


def held_out_loss(shared: list[str], checkpoint: Path) -> float:
    """Return the mean loss over the target tokens of all held-out pairs."""
    opened = open_fixed(
        [
            "--config=configs/stage3.py:mini",
            *shared,
            f"--config.init_from={checkpoint}",
            "--config.data.rows_per_batch=8",
        ]
    )
    loss_fn = jax.jit(opened.stage.loss_fn)
    total = targets = 0.0
    for batch, _ in batches_with_clips(opened.rows(split="val")):
        count = float((batch[TARGET_IDS] != IGNORE).sum())
        total += count * float(loss_fn(opened.trainable, opened.frozen, batch, None)[0])
        targets += count
    return total / targets


def measure(given: argparse.Namespace, *, layout: str, seed: int) -> dict[str, Any]:
    """Train and judge one layout with one seed; kept in the run's folder."""
    run_dir = given.work / f"{layout}_{seed}"
    kept = run_dir / "grouping.json"
    if kept.is_file():
        return read_json(kept)
    alternate.show(f"{layout}, seed {seed}")
    shared = [f"--config.{pair}" for pair in given.config]
    command(
        [
            "ltu_jax.train",
            "--config=configs/stage3.py:mini",
            *shared,
            f"--config.init_from={given.init_from}",
            f"--config.run_dir={run_dir}",
            f"--config.seed={seed}",
            f"--config.steps={given.steps}",
            "--config.log.samples=0",
            *LAYOUTS[layout],
        ]
    )
    summary = run_dir / "summary_joint.json"
    command(
        [
            *("ltu_jax.evaluate", "--checkpoint", str(run_dir), "--benchmarks", "mini"),
            *("--data", str(given.data), "--modes", "joint", "--decodings", "greedy"),
            *("--out", str(run_dir / "eval"), "--summary", str(summary)),
        ]
    )
    trained = read_json(run_dir / "summary.json")
    found = {
        "layout": layout,
        "seed": seed,
        "held_out_loss": held_out_loss(shared, run_dir),
        "training_loss": trained["last_loss"],
        "seconds": trained["seconds"],
        "tasks": {task: row["joint"]["value"] for task, row in read_json(summary)["tasks"].items()},
    }
    write_json(kept, found)
    return found


def spread(values: list[float]) -> str:
    """Return mean and standard deviation over seeds."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grouping",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init-from", required=True, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, help="the mini corpus")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=330, help="of each training (default 330)")
    parser.add_argument("--work", type=Path, default=Path("runs/grouping"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grouping_mini.json"))
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    given = parser.parse_args()
    runs = [measure(given, layout=layout, seed=seed) for seed in given.seeds for layout in LAYOUTS]
    by_layout = {name: [run for run in runs if run["layout"] == name] for name in LAYOUTS}
    figures = {
        "held-out loss": lambda run: run["held_out_loss"],
        **{task: lambda run, task=task: run["tasks"][task] for task in runs[0]["tasks"]},
    }
    rows = [
        {"figure": name}
        | {layout: spread([read(run) for run in found]) for layout, found in by_layout.items()}
        for name, read in figures.items()
    ]
    print(alternate.table(rows))
    write_json(
        given.out,
        alternate.header()
        | {
            "what": f"stage 3 of the mini preset, {PAIRS} pairs a step, {given.steps} steps",
            "seeds": given.seeds,
            "mean_and_spread": rows,
            "runs": runs,
        },
    )
    print(given.out)


if __name__ == "__main__":
    errors.main(main)
