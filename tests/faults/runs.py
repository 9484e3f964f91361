"""Training runs of a toy stage that can be killed, and what they leave behind, bit by bit."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import tiny_stage
from tests.support.zygote import Process

ROOT = Path(__file__).resolve().parent.parent.parent

STEPS, EVERY = 8, 2
SETTINGS = (
    f"--config.steps={STEPS}", "--config.mesh.data=-1", "--config.mesh.fsdp=1",
    "--config.mesh.tensor=1", f"--config.checkpoint.every={EVERY}", "--config.checkpoint.keep=2",
    "--config.log.validate_batches=0", "--config.log.tensorboard=false",
)  # fmt: skip
# Part of the adapter is not trained, as in stage 1: a resume must keep what was inherited.
_FREEZE = r'    config.trainable = ((r"tltr\.time_tr\..+", False), *config.trainable)'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run is: every array of its newest checkpoint, and the loss of each step."""

    arrays: Mapping[str, np.ndarray]
    losses: Mapping[int, float]

    def differences(self, other: "Result") -> list[str]:
        """Names of what is not the same, bit for bit."""
        found = [
            name
            for name in sorted(self.arrays.keys() | other.arrays.keys())
            if name not in self.arrays
            or name not in other.arrays
            or self.arrays[name].tobytes() != other.arrays[name].tobytes()
        ]
        steps = sorted(self.losses.keys() | other.losses.keys())
        return found + [
            f"loss of step {step}"
            for step in steps
            if self.losses.get(step) != other.losses.get(step)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run(Process):
    """A training process."""

    folder: Path
    log: Path

    def said(self) -> str:
        """Return what it printed, errors included."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Lab:
    """A place for toy runs: weights and records, and what an undisturbed run becomes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.place = tiny_stage.make_place(folder / "place")
        self._configure("    return config", f"{_FREEZE}\n    return config")

    def start(
        self,
        run_dir: Path,
        *more: str,
        log: Path | None = None,
        devices: int = 1,
        inject: tuple[str, str, Any] | None = None,
    ) -> Run:
        """Begin (or go on with) the run in `run_dir`.

        `inject` is a module, a function of it and an argument: called in the new process before
        training begins.
        """
        log = log or run_dir.with_suffix(".log")
        arguments = tiny_stage.arguments(self.place, run_dir, *SETTINGS, *more)
        zygote = tiny_stage.zygote()
        with log.open("ab") as file:
            process = zygote.start(
                ["-m", "ltu_jax.train", *arguments],
                env=tiny_stage.environment(devices=devices),
                stdout=file,
                stderr=file,
                inject=inject,
            )
        return Run(zygote=zygote, pid=process.pid, folder=run_dir, log=log)

    @functools.cached_property
    def _unbroken(self) -> tuple[Result, float]:
        # The first one fills the compilation cache, and the others inherit its adapter.
        self._run("inherited", "--config.seed=7")
        self._configure('init_from = ""', f"init_from = {str(self.folder / 'inherited')!r}")
        begin = time.monotonic()
        self._run("unbroken")
        return result(self.folder / "unbroken"), time.monotonic() - begin

    def _run(self, name: str, *more: str) -> None:
        run = self.start(self.folder / name, *more)
        status = run.wait()
        if status != 0:
            raise RuntimeError(f"the undisturbed run ended with {status}:\n{run.said()[-3000:]}")

    def _configure(self, old: str, new: str) -> None:
        """Change the config file of the place."""
        path = self.place / "tiny.py"
        before = path.read_text()
        path.write_text(before.replace(old, new))
        assert path.read_text() != before

    @property
    def truth(self) -> Result:
        """The result of a run that nobody disturbed."""
        return self._unbroken[0]

    @property
    def seconds(self) -> float:
        """How long that took, with programs compiled before."""
        return self._unbroken[1]

    @property
    def unbroken(self) -> Path:
        """The folder of that run."""
        return self._unbroken and self.folder / "unbroken"

    def make_folder(self, name: str) -> Path:
        """A new folder for the runs of one guarantee."""
        folder = self.folder / name
        folder.mkdir()
        return folder


def result(run_dir: Path) -> Result:
    """What the run in `run_dir` has left; numbers are read as they lie, without a model."""
    import jax
    import orbax.checkpoint as ocp

    from ltu_jax import checkpoint
    from ltu_jax.training.logs import read_rows

    folder = checkpoint.resolve(run_dir)
    arrays: dict[str, np.ndarray] = {}
    with ocp.PyTreeCheckpointer() as reader:
        for part in ("adapter", "optimizer"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(reader.restore(folder / part)):
                arrays[part + jax.tree_util.keystr(path)] = np.asarray(leaf)
    rows = read_rows(run_dir / "log.jsonl")
    return Result(arrays=arrays, losses={r["step"]: r["loss"] for r in rows if "loss" in r})
