"""`python -m ltu_jax.train` as two processes of one program: the same run as one process."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ltu_jax import checkpoint, train
from ltu_jax.core.errors import UserError
from tests.support.tiny_stage import ROOT, arguments, make_place, processes

pytestmark = pytest.mark.slow
TRAIN = ["-m", "ltu_jax.train"]
SAMPLES = ["--config.log.samples=2", "--config.log.sample_tokens=3", "--config.log.samples_every=0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def train_here(place: Path, run_dir: Path, *more: str) -> Path:
    """The run in this process, on the first four of its devices."""
    with contextlib.chdir(ROOT):
        assert train.main(arguments(place, run_dir, *more), devices=jax.devices()[:4]) == 0
    return run_dir


@pytest.fixture(scope="module")
def one(place) -> Path:
    """One process with four devices."""
    return train_here(place, place / "one", *SAMPLES)


@pytest.fixture(scope="module")
def two(place) -> Path:
    """Two processes with two devices each, started as a user starts them."""
    command = [*TRAIN, *arguments(place, place / "two", *SAMPLES)]
    first, second = processes(command, command, devices=2)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "checkpoint: " in first.stdout and "checkpoint: " not in second.stdout
    assert "4/4" in first.stderr and "4/4" not in second.stderr
    return place / "two"


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def sampled(run_dir: Path) -> list[list[dict]]:
    return [row["samples"] for row in rows(run_dir) if "samples" in row]


def losses(run_dir: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(run_dir) if "loss" in row}


def stopped_after_two(run_dir: Path, copy: Path) -> Path:
    """A copy of a run as it was after step 2."""
    (copy / "checkpoints").mkdir(parents=True)
    shutil.copytree(run_dir / "checkpoints" / "2", copy / "checkpoints" / "2")
    return copy


def assert_same_run(found: Path, expected: Path, *, steps: set[int]) -> None:
    assert losses(found).keys() == steps
    for step, loss in losses(found).items():
        np.testing.assert_allclose(loss, losses(expected)[step], rtol=1e-5)
    _, params = checkpoint.load_adapter(found)
    _, truth = checkpoint.load_adapter(expected)
    assert params.keys() == truth.keys()
    for path, leaf in truth.items():
        np.testing.assert_allclose(params[path], leaf, atol=1e-5, rtol=0, err_msg=path)


def test_two_processes_train_as_one(one, two):
    assert_same_run(two, one, steps={1, 2, 3, 4})
    assert losses(two)[4] != losses(two)[1]
    held_out = [[row["val_loss"] for row in rows(run) if "val_loss" in row] for run in (one, two)]
    np.testing.assert_allclose(held_out[1], held_out[0], rtol=1e-5)
    ((answers, same),) = zip(*(sampled(run) for run in (one, two)), strict=True)
    assert answers == same and len(answers) == 2
    # One log, one config, one summary, and checkpoints without anything left beside them.
    assert len(rows(two)) == len(rows(one))
    names = {"checkpoints", "config.json", "log.jsonl", "loss.png", "summary.json", "tensorboard"}
    assert {path.name for path in two.iterdir()} == names
    assert {path.name for path in (two / "checkpoints").iterdir()} == {"2", "4"}
    _, metadata = checkpoint.read_metadata(two)  # hashes every file
    assert metadata["step"] == 4


def test_two_processes_go_on_from_checkpoints_of_one_and_of_two(one, two, place):
    of_one = stopped_after_two(one, place / "two_after_one")
    of_two = stopped_after_two(two, place / "two_after_two")
    command = [
        str(ROOT / "tests" / "training" / "two_runs.py"),
        *arguments(place, of_one),
        "--",
        *arguments(place, of_two),
    ]
    for process in processes(command, command, devices=2):
        assert process.returncode == 0, process.stderr
    assert_same_run(of_one, one, steps={3, 4})
    assert_same_run(of_two, two, steps={3, 4})


def test_one_process_goes_on_from_a_checkpoint_of_two(one, two, place):
    of_two = stopped_after_two(two, place / "one_after_two")
    assert_same_run(train_here(place, of_two), one, steps={3, 4})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            ["--config.mesh.model=2"],
            "unknown config key model; the axes of config.mesh are data, fsdp, tensor",
        ),
        (
            ["--config.mesh.tensor=16"],
            "mesh data=1, fsdp=2, tensor=16 needs 32 devices, 8 are present; the nearest meshes "
            "that fit: (data=1, fsdp=2, tensor=4) or ",
        ),
        (
            ["--config.mesh.data=3", "--config.mesh.tensor=1"],
            "mesh data=3, fsdp=2, tensor=1 needs 6 devices, 8 are present; the nearest meshes "
            "that fit: (data=4, fsdp=2, tensor=1) or ",
        ),
        (
            ["--config.mesh.data=4", "--config.mesh.tensor=1", "--config.data.rows_per_batch=12"],
            "batch of 12 rows does not divide over data x fsdp = 8 devices; the nearest "
            "data.rows_per_batch that do: 8 and 16",
        ),
        (
            ["--config.mesh.data=2", "--config.optimizer.accumulation=3"],
            "batch of 8 rows does not divide over data x fsdp = 4 devices x "
            "optimizer.accumulation = 3; the nearest data.rows_per_batch that does: 12",
        ),
    ],
)
def test_wrong_meshes_are_told_with_the_nearest_that_work(wrong, message, place):
    with pytest.raises(UserError) as error:
        train.main(arguments(place, place / "wrong", *wrong))
    assert message in str(error.value)
    assert not (place / "wrong" / "checkpoints").exists()
