"""Several processes as one program: start, barriers, and host-local batches made global."""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import BATCH, batch_sharding

_TPU_POD = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
_EXPLICIT = ("LTU_JAX_COORDINATOR", "LTU_JAX_NUM_PROCESSES", "LTU_JAX_PROCESS_ID")


def initialize() -> None:
    """Start `jax.distributed` where several processes take part; does nothing alone.

    A TPU pod is found by its own environment variables. Elsewhere set LTU_JAX_COORDINATOR
    (host:port), LTU_JAX_NUM_PROCESSES and LTU_JAX_PROCESS_ID.

    Raises:
        UserError: only some of the three variables are set.
    """
    given = [name for name in _EXPLICIT if os.environ.get(name)]
    if given and len(given) < len(_EXPLICIT):
        missing = sorted(set(_EXPLICIT) - set(given))
        raise UserError(f"{', '.join(given)} set but {', '.join(missing)} missing: set all three")
    if given:
        jax.distributed.initialize(
            coordinator_address=os.environ[_EXPLICIT[0]],
            num_processes=int(os.environ[_EXPLICIT[1]]),
            process_id=int(os.environ[_EXPLICIT[2]]),
        )
    elif any("," in os.environ.get(name, "") for name in _TPU_POD):
        jax.distributed.initialize()


def is_main() -> bool:
    """Whether this process writes logs and summaries."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def host_batch_to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays, the batch axis over data and fsdp, from each process's own rows.

    Raises:
        UserError: the global batch does not divide by the data and fsdp axes.
    """
    ways = int(np.prod([mesh.shape[axis] for axis in BATCH]))
    sharding = batch_sharding(mesh)
    arrays = {}
    for name, rows in batch.items():
        total = rows.shape[0] * jax.process_count()
        if total % ways:
            raise UserError(
                f"batch of {total} rows does not divide over data x fsdp = {ways} devices; "
                f"the nearest sizes that do are {total // ways * ways} and "
                f"{(total // ways + 1) * ways}"
            )
        arrays[name] = jax.make_array_from_process_local_data(sharding, rows)
    return arrays
