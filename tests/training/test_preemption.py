"""A training process that is told to stop while it saves: nothing is lost, to the bit."""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ltu_jax import checkpoint
from ltu_jax.checkpoint import recovery
from ltu_jax.train import RESUME
from tests.support.tiny_stage import (
    ROOT,
    arguments,
    environment,
    make_place,
    processes,
    zygote,
)
from tests.support.zygote import Process

pytestmark = pytest.mark.slow
STEPS = ("--config.steps=8", "--config.checkpoint.every=2", "--config.checkpoint.keep=9")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("preemption"))


def command(place: Path, run_dir: Path, *python: str) -> list[str]:
    return [*python, *arguments(place, run_dir, *STEPS)]


def train(place: Path, run_dir: Path) -> None:
    (ended,) = processes(command(place, run_dir, "-m", "ltu_jax.train"), devices=4)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def unbroken(place) -> Path:
    train(place, place / "unbroken")
    return place / "unbroken"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedRun:
    """A run whose saves wait: each says that it begins on `output`, and goes on by a line."""

    process: Process
    input: IO[str]
    output: IO[str]

    def next_save(self) -> int | None:
        """The step whose save has begun and waits; None at the end of the output."""
        for line in self.output:
            if line.startswith("saving "):
                return int(line.split()[1])
        return None

    def let_through(self) -> None:
        self.input.write("\n")
        self.input.flush()


@contextlib.contextmanager
def gated(place: Path, run_dir: Path, *, errors: Path) -> Iterator[GatedRun]:
    script = str(ROOT / "tests" / "training" / "gated_saves.py")
    (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
    with open(our_in, "w") as write, open(our_out) as read:
        with open(their_in) as stdin, open(their_out, "w") as stdout, errors.open("w") as stderr:
            process = zygote().start(
                command(place, run_dir, script),
                env=environment(devices=4),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            yield GatedRun(process=process, input=write, output=read)
        finally:
            process.kill()


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
    run_dir, errors = place / "stopped", place / "stopped.err"
    steps = []
    with gated(place, run_dir, errors=errors) as run:
        while (step := run.next_save()) is not None:
            steps.append(step)
            run.process.signal(signal.SIGTERM)  # the first one comes while step 2 is written,
            if len(steps) > 1:  # and two more while each later one is
                run.process.signal(signal.SIGINT)
            run.let_through()
        status = run.process.wait(within=120)
    assert status == RESUME, errors.read_text()
    # The steps after the signal: the one in flight, and one more if a save was due before it.
    assert steps[0] == 2 and len(steps) >= 2 and steps[-1] <= 5, steps
    assert recovery.newest_good(run_dir) == steps[-1] == losses(run_dir)[-1][0]
    left = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert left == set(map(str, steps))

    train(place, run_dir)
    assert_same_run(run_dir, unbroken)
