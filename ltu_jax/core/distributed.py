"""Several processes as one program: start, agreement, stopping together, and global batches.

Every function that talks to other processes must be called by all of them in the same order, and
does nothing (or the obvious) when there is one process only.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.sharding import BATCH, batch_ways, check_rows

_EXPLICIT = ("LTU_JAX_COORDINATOR", "LTU_JAX_NUM_PROCESSES", "LTU_JAX_PROCESS_ID")
_AUTO, _PATIENCE = "LTU_JAX_DISTRIBUTED", "LTU_JAX_START_SECONDS"
_NAMED = 5  # differences, and processes of one value, in a message


class AgreedError(UserError):
    """An error that every process raises, so that all of them can end in good order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """This process reads part `index` of `count` equal parts of each global batch."""

    index: int
    count: int


def initialize() -> None:
    """Start `jax.distributed` where several processes take part; does nothing alone.

    Set LTU_JAX_COORDINATOR (host:port), LTU_JAX_NUM_PROCESSES and LTU_JAX_PROCESS_ID; or
    LTU_JAX_DISTRIBUTED=auto where JAX finds the others itself (TPU VMs, GKE, Slurm). A TPU pod
    that names its hosts in the environment is found without either. LTU_JAX_START_SECONDS (300)
    is how long to wait for the others.

    Raises:
        UserError: only some of the three variables are set, or one that is no number.
    """
    if jax.distributed.is_initialized():
        return
    given = [name for name in _EXPLICIT if os.environ.get(name)]
    if given and len(given) < len(_EXPLICIT):
        missing = sorted(set(_EXPLICIT) - set(given))
        raise UserError(f"{', '.join(given)} set but {', '.join(missing)} missing: set all three")
    patience = _number(_PATIENCE, default="300")
    if given:
        jax.distributed.initialize(
            coordinator_address=os.environ[_EXPLICIT[0]],
            num_processes=_number(_EXPLICIT[1]),
            process_id=_number(_EXPLICIT[2]),
            initialization_timeout=patience,
        )
    elif _is_pod():
        jax.distributed.initialize(initialization_timeout=patience)


def _is_pod() -> bool:
    auto = os.environ.get(_AUTO, "")
    if auto not in ("", "auto"):
        raise UserError(f"{_AUTO} is {auto!r}; use 'auto', or leave it away")
    several_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return bool(auto or several_hosts or os.environ.get("MEGASCALE_COORDINATOR_ADDRESS"))


def _number(name: str, default: str = "") -> int:
    value = os.environ.get(name, default)
    if not value.isdigit():
        raise UserError(f"{name} is {value!r}; give a whole number")
    return int(value)


def is_main() -> bool:
    """Tell whether this process writes logs and summaries."""
    return jax.process_index() == 0


def tell(text: str) -> None:
    """Print a line on stderr, once for all processes."""
    if is_main():
        print(text, file=sys.stderr, flush=True)


def leave(error: UserError) -> NoReturn:
    """End a process whose error the others do not know of.

    An ordinary exit would first wait for them, and they wait for this one in an exchange; so it
    goes at once, and JAX ends the others when its heartbeats stay away (100 s).

    Raises:
        UserError: `error` itself, when all processes have it or there is one only.
    """
    if isinstance(error, AgreedError) or not jax.distributed.is_initialized():
        raise error
    where = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"error: {error} (on {where}; the others are ended too)", file=sys.stderr, flush=True)
    os._exit(2)


def barrier(name: str) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


# --- agreement --------------------------------------------------------------------------------


def agree(facts: Callable[[], Mapping[str, str]], *, advice: str) -> None:
    """Compare short texts or digests by name over all processes.

    Args:
        facts: makes name -> text or digest; not called when there is one process.
        advice: the last half of the error, what to do.

    Raises:
        AgreedError: on every process; names what differs, the values, and on which processes.
    """
    if jax.process_count() == 1:
        return
    mine = dict(facts())
    text = json.dumps(mine, sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    if (digests == digests[0]).all():
        return
    everyones = [json.loads(other) for other in _gather_texts(text)]
    differing = [
        f"{name} is {_by_value([others.get(name, '(absent)') for others in everyones])}"
        for name in sorted(set().union(*everyones))
        if any(others.get(name) != everyones[0].get(name) for others in everyones)
    ]
    raise AgreedError(
        f"the {len(everyones)} processes of this run differ: "
        f"{shorten(differing, most=_NAMED, separator='; ')}; {advice}"
    )


@contextlib.contextmanager
def together(problem: str) -> Iterator[None]:
    """Raise on all processes, after the block, a `UserError` of any process inside it.

    The block must not talk to other processes itself.

    Raises:
        AgreedError: on every process, with the message of those that failed.
    """
    failure: UserError | None = None
    try:
        yield
    except UserError as error:
        if jax.process_count() == 1:
            raise
        failure = error
    if jax.process_count() == 1:
        return
    failed = multihost_utils.process_allgather(np.asarray(failure is not None))
    if not failed.any():
        return
    messages = _gather_texts(str(failure or ""))
    where = _by_value([message for message, flag in zip(messages, failed, strict=True) if flag],
                      numbers=np.flatnonzero(failed).tolist())  # fmt: skip
    raise AgreedError(f"{problem}: {where}") from failure


def check_devices() -> None:
    """Require the same number of devices on every process: global arrays are built on that.

    Raises:
        AgreedError: on every process, with the numbers.
    """
    counts = [0] * jax.process_count()
    for device in jax.devices():
        counts[device.process_index] += 1
    if len(set(counts)) > 1:
        raise AgreedError(
            f"the processes have {counts} devices; start one process a host on hosts of one kind"
        )


def everywhere(flags: Sequence[bool]) -> list[bool]:
    """Return which flags are set on every process; each gives equally many."""
    if jax.process_count() == 1:
        return list(flags)
    return multihost_utils.process_allgather(np.asarray(flags, bool)).all(axis=0).tolist()


def _by_value(values: list[str], *, numbers: list[int] | None = None) -> str:
    """Say which value is on which process: `a on process 0 and b on processes 1, 2`."""
    places: dict[str, list[int]] = {}
    for number, value in zip(numbers or range(len(values)), values, strict=True):
        places.setdefault(value, []).append(number)
    return " and ".join(
        f"{value} on process{'es' if len(own) > 1 else ''} {shorten(own, most=_NAMED)}"
        for value, own in places.items()
    )


def _gather_texts(text: str) -> list[str]:
    """Return the text of every process, in their order; lengths may differ."""
    mine = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(mine.size, np.int32)).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: mine.size] = mine
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(rows, lengths, strict=True)]


def from_main(text: str) -> str:
    """Return the text of the main process, on every process."""
    return text if jax.process_count() == 1 else _gather_texts(text)[0]


class Votes:
    """A running vote on stopping, whose outcome all processes learn after the same step.

    With several processes a vote is counted on the devices and read when the next one is cast, so
    the host never waits for the step in flight; all then stop one step later.
    """

    def __init__(self) -> None:
        self._cast: Array | None = None

    def cast(self, flag: bool) -> bool:
        """Give this process's vote; returns the outcome (of the vote before, if not alone)."""
        if jax.process_count() == 1:
            return flag
        before, self._cast = self._cast, _count_votes(flag)
        return before is not None and bool(before)


def _count_votes(flag: bool) -> Array:
    mesh = _all_devices()
    shape = (jax.device_count(),)
    spread = NamedSharding(mesh, PartitionSpec("all"))
    votes = jax.make_array_from_callback(shape, spread, lambda _: np.asarray([flag]))
    return _any(votes, NamedSharding(mesh, PartitionSpec()))


@functools.cache
def _all_devices() -> Mesh:
    return Mesh(np.asarray(jax.devices()), ("all",))


@functools.partial(jax.jit, static_argnums=1)
def _any(votes: Array, whole: NamedSharding) -> Array:
    return jax.lax.with_sharding_constraint(votes.any(), whole)


# --- batches ----------------------------------------------------------------------------------


@functools.cache
def batch_share(mesh: Mesh, *, process: int | None = None) -> Share:
    """Return the part of each global batch that a process reads to fill its devices of `mesh`.

    Processes whose devices differ in the tensor axis only hold, and so read, the same rows.

    Args:
        mesh: of `core.sharding.make_mesh`.
        process: whose part; None for this one.

    Raises:
        UserError: a tensor axis that cuts through a process's devices unevenly.
    """
    blocks = np.moveaxis(mesh.devices, [mesh.axis_names.index(axis) for axis in BATCH], [0, 1])
    blocks = blocks.reshape(batch_ways(mesh), -1)
    by_process: dict[int, set[int]] = {}
    for number, row in enumerate(blocks):
        for device in row:
            by_process.setdefault(device.process_index, set()).add(number)
    parts = sorted({tuple(sorted(numbers)) for numbers in by_process.values()})
    if len({len(part) for part in parts}) > 1 or sum(map(len, parts)) != len(blocks):
        each = len(mesh.devices.flat) // len(by_process)
        raise UserError(
            f"mesh {dict(mesh.shape)} over {len(by_process)} processes of {each} devices: tensor="
            f"{mesh.shape['tensor']} cuts through the devices of a process; use a divisor or a "
            f"multiple of {each}"
        )
    mine = tuple(sorted(by_process[jax.process_index() if process is None else process]))
    return Share(index=parts.index(mine), count=len(parts))


def host_batch_to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays, the batch axis over data and fsdp, from each process's own rows.

    The rows of a process are those of its `batch_share`.

    Raises:
        UserError: the global batch does not divide by the data and fsdp axes.
    """
    sharding, parts = NamedSharding(mesh, PartitionSpec(BATCH)), batch_share(mesh).count
    arrays = {}
    for name, rows in batch.items():
        total = rows.shape[0] * parts
        check_rows(total, mesh=mesh)
        shape = (total, *rows.shape[1:])
        arrays[name] = jax.make_array_from_process_local_data(sharding, rows, shape)
    return arrays
