"""Compiling a step for TPUs that are not there, with the compiler that libtpu carries."""

import contextlib
import dataclasses
import fcntl
import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental import topologies

from ltu_jax.core.errors import UserError
from ltu_jax.core.memory import most_resident
from ltu_jax.planning.hlo_cost import HloCost, roll_up
from ltu_jax.planning.slices import Slice
from ltu_jax.training.program import Program

LIBTPU = "libtpu==0.0.42.1"  # the version that jax[tpu] 0.10.2 asks for
_USED = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", re.IGNORECASE)
_NEEDED = re.compile(r"temporaries \(([\d.]+)([KMGT])\) exceeds", re.IGNORECASE)
_UNITS = {unit: 1 << 10 * power for power, unit in enumerate("KMGT", start=1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says about a step on one device.

    `cost` is None where it refused the step for want of memory, or cannot print it. `peak_bytes`
    is then what it says it would need.
    """

    fits: bool
    peak_bytes: float
    argument_bytes: float
    temporary_bytes: float
    cost: HloCost | None
    problem: str
    seconds: float
    resident_bytes: int


def library() -> Path | None:
    """Find the TPU compiler: in `TPU_LIBRARY_PATH`, in the environment, or nowhere.

    The folder `libtpu` of the environment is where `make test` puts it. A package libtpu, as TPU
    machines have it, is not installed elsewhere: JAX then looks for TPUs in every program.
    """
    given = os.environ.get("TPU_LIBRARY_PATH")
    if given:
        return Path(given)
    fetched = _folder() / "libtpu" / "libtpu.so"
    if fetched.is_file():
        return fetched
    package = importlib.util.find_spec("libtpu")
    return Path(package.origin).parent / "libtpu.so" if package and package.origin else None


def _folder() -> Path:
    return Path(sys.prefix) / "libtpu"


def devices_of(tpu: Slice) -> list[jax.Device]:
    """Describe the devices of a slice, for compiling only.

    Raises:
        UserError: libtpu is absent, or does not know the slice.
    """
    compiler_file = library()
    if compiler_file is None:
        raise UserError(
            "the TPU compiler is missing: there is no libtpu. Get it (pip install --no-deps "
            f"--target {_folder()} {LIBTPU}; it needs no TPU), or plan for a GPU by arithmetic "
            "(--gpu h200)"
        )
    if not compiler_file.is_file():
        raise UserError(
            f"TPU_LIBRARY_PATH is {compiler_file}, which is no file; unset it, or correct it"
        )
    os.environ["TPU_LIBRARY_PATH"] = str(compiler_file)
    # Without these libtpu looks for the machine it would be running on and complains.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Its lock is about chips, and there are none; without this two plans at a time fail.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        topology = topologies.get_topology_desc(
            tpu.topology, platform="tpu", **tpu.topology_options
        )
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        if "lockfile" in str(error):
            raise UserError(
                "another process has the TPU compiler, and libtpu allows one per machine: wait for "
                "it, or delete /tmp/libtpu_lockfile if there is none"
            ) from error
        raise UserError(
            f"the TPU compiler refuses {tpu.name} ({tpu.topology}): "
            f"{str(error).splitlines()[0]}; is {LIBTPU} installed?"
        ) from error
    return list(topology.devices)


def libtpu_version() -> str:
    """Return the version of the TPU compiler that is used, "unknown" where nothing tells it."""
    compiler_file = library()
    if compiler_file is None:
        return "not installed"
    beside = sorted(compiler_file.resolve().parent.parent.glob("libtpu-*.dist-info"))
    return beside[-1].stem.split("-")[1] if beside else "unknown"


@contextlib.contextmanager
def compiler() -> Iterator[None]:
    """Be the only planner on this machine: libtpu aborts a second process that loads it."""
    compiler_file = library()
    if compiler_file is None or not compiler_file.is_file():  # `devices_of` says so
        yield
        return
    # The library itself is locked: a file of a known name in a folder of everybody's could be
    # put there by anybody.
    with compiler_file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another plan is being compiled on this machine; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a disk without locks
            print("start one plan at a time: there are no locks here", flush=True)
        yield


def compile_program(program: Program, *, hbm_bytes: int) -> Compiled:
    """Compile a program for the devices of its mesh and read what the compiler says.

    Args:
        program: the step.
        hbm_bytes: memory of a device that a program may use.
    """
    start = time.perf_counter()
    lowered = program.lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise
        return Compiled(
            fits=False,
            peak_bytes=needed,
            argument_bytes=0.0,
            temporary_bytes=0.0,
            cost=None,
            problem=str(error).splitlines()[0],
            seconds=time.perf_counter() - start,
            resident_bytes=most_resident(),
        )
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporary = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes + fresh
    peak = memory.argument_size_in_bytes + temporary
    cost, problem = None, ""
    try:
        cost = roll_up(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        problem = f"the compiler cannot print this program: {str(error).splitlines()[0]}"
    return Compiled(
        fits=peak <= hbm_bytes,
        peak_bytes=peak,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=temporary,
        cost=cost,
        problem=problem,
        seconds=seconds,
        resident_bytes=most_resident(),
    )


def _needed_bytes(message: str) -> float | None:
    """Read the bytes that a program needs from an out-of-memory message of the TPU compiler."""
    used = _USED.search(message) or _NEEDED.search(message)
    return float(used.group(1)) * _UNITS[used.group(2).upper()] if used else None
