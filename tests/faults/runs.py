"""Training runs of a toy stage that can be killed, and what they leave behind, bit by bit."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "stages"))

STEPS = 8
SETTINGS = (
    f"--config.steps={STEPS}", "--config.mesh.data=-1", "--config.mesh.fsdp=1",
    "--config.mesh.tensor=1", "--config.checkpoint.every=2", "--config.checkpoint.keep=2",
    "--config.log.validate_batches=0", "--config.log.tensorboard=false",
)  # fmt: skip


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
        self._place = place
        environment = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true",
            "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": str(ROOT),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env={**os.environ, **environment},
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

    def start(self, run_dir: Path, *more: str, env: Mapping[str, str] | None = None) -> "Run":
        """Begin (or go on with) the run in `run_dir`."""
        import tiny_stage

        log = run_dir.with_suffix(".log")
        arguments = tiny_stage.arguments(self._place, run_dir, *SETTINGS, *more)
        self._write({"run": arguments, "log": str(log), "env": dict(env or {})})
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


@contextlib.contextmanager
def prepared(folder: Path | None = None) -> Iterator[tuple[Path, Zygote]]:
    """A folder with toy weights and records, and a zygote that trains on them."""
    import tiny_stage

    temporary = Path(tempfile.mkdtemp(prefix="faults-")) if folder is None else folder
    try:
        place = tiny_stage.make_place(temporary / "place")
        zygote = Zygote(place)
        try:
            yield temporary, zygote
        finally:
            zygote.close()
    finally:
        if folder is None:
            shutil.rmtree(temporary, ignore_errors=True)


def unbroken(zygote: Zygote, folder: Path, *more: str) -> tuple[Result, float]:
    """The result of a run that nobody disturbed, and how long it took.

    A first run fills the compilation cache and is thrown away.
    """
    for name in ("warm", "unbroken"):
        begin = time.monotonic()
        run = zygote.start(folder / name, *more)
        status = run.end()
        if status != 0:
            raise RuntimeError(f"the undisturbed run ended with {status}:\n{run.said()[-3000:]}")
    return result(folder / "unbroken"), time.monotonic() - begin


def result(run_dir: Path) -> Result:
    """What the run in `run_dir` has left; numbers are read as they lie, without a model."""
    import orbax.checkpoint as ocp

    from ltu_jax.training import checkpoint
    from ltu_jax.training.logs import read_rows

    folder = checkpoint.resolve(run_dir)
    arrays: dict[str, np.ndarray] = {}
    with ocp.PyTreeCheckpointer() as reader:
        for part in ("adapter", "optimizer"):
            import jax

            for path, leaf in jax.tree_util.tree_leaves_with_path(reader.restore(folder / part)):
                arrays[part + jax.tree_util.keystr(path)] = np.asarray(leaf)
    rows = read_rows(run_dir / "log.jsonl")
    return Result(arrays=arrays, losses={r["step"]: r["loss"] for r in rows if "loss" in r})
