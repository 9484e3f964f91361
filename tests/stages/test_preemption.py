"""A training process that is told to stop while it saves: nothing is lost, to the bit."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_stage import ROOT, arguments, environment, make_place

from ltu_jax import checkpoint
from ltu_jax.checkpoint import recovery
from ltu_jax.train import RESUME

pytestmark = pytest.mark.slow
STEPS = ("--config.steps=8", "--config.checkpoint.every=2", "--config.checkpoint.keep=9")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("preemption"))


def start(place: Path, run_dir: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command, *arguments(place, run_dir, *STEPS)],
        cwd=ROOT,
        env=environment(devices=4, cache=place / "cache"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def unbroken(place) -> Path:
    process = start(place, place / "unbroken", "-m", "ltu_jax.train")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return place / "unbroken"


def next_save(process: subprocess.Popen) -> int | None:
    """The step whose save has begun and waits; None at the end of the output."""
    for line in process.stdout:
        if line.startswith("saving "):
            return int(line.split()[1])
    return None


def let_through(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def everything(run_dir: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint by name, the optimiser's too."""
    folder, found = checkpoint.resolve(run_dir), {}
    for part in ("adapter", "optimizer"):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(folder / part)
        leaves = ocp.tree.to_flat_dict(tree, sep="/")
        found |= {f"{part}/{name}": np.asarray(leaf) for name, leaf in leaves.items()}
    return found


def losses(run_dir: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def assert_same_run(found: Path, expected: Path) -> None:
    assert losses(found) == losses(expected)
    arrays, truth = everything(found), everything(expected)
    assert arrays.keys() == truth.keys() and len(arrays) > 20
    for name, leaf in truth.items():
        np.testing.assert_array_equal(arrays[name], leaf, err_msg=name)


def test_signals_while_saving_lose_no_step(place, unbroken):
    run_dir = place / "stopped"
    process = start(place, run_dir, str(ROOT / "tests" / "stages" / "gated_saves.py"))
    steps = []
    try:
        while (step := next_save(process)) is not None:
            steps.append(step)
            process.send_signal(signal.SIGTERM)  # the first one comes while step 2 is written,
            if len(steps) > 1:  # and two more while each later one is
                process.send_signal(signal.SIGINT)
            let_through(process)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == RESUME, err
    # The steps after the signal: the one in flight, and one more if a save was due before it.
    assert steps[0] == 2 and len(steps) >= 2 and steps[-1] <= 5, steps
    assert recovery.newest_good(run_dir) == steps[-1] == losses(run_dir)[-1][0]
    left = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert left == set(map(str, steps))

    again = start(place, run_dir, "-m", "ltu_jax.train")
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert_same_run(run_dir, unbroken)
