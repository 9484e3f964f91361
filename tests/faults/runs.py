"""Training runs of a toy stage that can be killed, and what they leave behind, bit by bit."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
for _name in ("stages", "training", "data_pipelines"):
    sys.path.insert(0, str(ROOT / "tests" / _name))

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


class Zygote:
    """Starts runs by forking one prepared process; see `zygote.py`."""

    def __init__(self, place: Path):
        import tiny_stage

        self._place = place
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=tiny_stage.environment(devices=1, cache=place / "cache"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def close(self) -> None:
        """End the zygote; its children are killed by whoever started them."""
        self._process.stdin.close()
        self._process.wait()

    def start(
        self,
        run_dir: Path,
        *more: str,
        log: Path | None = None,
        devices: int = 1,
        inject: tuple[str, str, Any] | None = None,
    ) -> "Run":
        """Begin (or go on with) the run in `run_dir`.

        `inject` is a module, a function of it and an argument: called in the new process before
        training begins.
        """
        import tiny_stage

        log = log or run_dir.with_suffix(".log")
        arguments = tiny_stage.arguments(self._place, run_dir, *SETTINGS, *more)
        environment = tiny_stage.environment(devices=devices, cache=self._place / "cache")
        self._write({"run": arguments, "log": str(log), "env": environment, "inject": inject})
        return Run(zygote=self, pid=self._read()["pid"], folder=run_dir, log=log)

    def wait(self, pid: int, *, seconds: float | None) -> int | None:
        """Exit status of a run (negative: the signal that killed it); None when it goes on."""
        self._write({"wait": pid, "seconds": seconds})
        return self._read()["status"]

    def _write(self, value: Any) -> None:
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote ended; run `python -m tests.faults.zygote` by hand")
        return json.loads(line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A training process."""

    zygote: Zygote
    pid: int
    folder: Path
    log: Path

    def end(self, *, within: float | None = None) -> int | None:
        """Wait for its end; None if it goes on after `within` seconds."""
        return self.zygote.wait(self.pid, seconds=within)

    def signal(self, number: int) -> None:
        """Send a signal; a run that has just ended does not mind."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL, and the status it ended with."""
        self.signal(signal.SIGKILL)
        return self.end()

    def said(self) -> str:
        """What it printed, errors included."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Lab:
    """A place for toy runs: weights and records, a zygote, and what an undisturbed run becomes."""

    def __init__(self, folder: Path):
        import tiny_stage

        self.folder = folder
        self.place = tiny_stage.make_place(folder / "place")
        self._configure("    return config", f"{_FREEZE}\n    return config")
        self.zygote = Zygote(self.place)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.zygote.close()

    @functools.cached_property
    def _unbroken(self) -> tuple[Result, float]:
        # The first one fills the compilation cache, and the others inherit its adapter.
        self._run("inherited", "--config.seed=7")
        self._configure('init_from = ""', f"init_from = {str(self.folder / 'inherited')!r}")
        begin = time.monotonic()
        self._run("unbroken")
        return result(self.folder / "unbroken"), time.monotonic() - begin

    def _run(self, name: str, *more: str) -> None:
        run = self.zygote.start(self.folder / name, *more)
        status = run.end()
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
