"""Whether all devices that hold the same part of the trained parameters hold the same bits.

Each device sums a hash of its own part; a few kilobytes travel. A sum that crossed devices before
it is compared would hide what is looked for.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import AgreedError
from ltu_jax.core.errors import shorten
from ltu_jax.core.sharding import replicated
from ltu_jax.core.trees import Params

# Odd numbers, so that each product is one to one: an entry that differs is never lost (those of
# MurmurHash3 and the golden ratio).
_SPREAD, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35


def check_replicas(params: Params, *, mesh: Mesh, step: int) -> int:
    """Compare the replicas of parameters over all devices of all processes.

    Args:
        params: 4-byte arrays on `mesh`.
        mesh: where they lie.
        step: for the message.

    Returns:
        How many parts were compared with the same part on the first device that holds it.

    Raises:
        AgreedError: on every process; names the parameters and the processes that hold another
            value than the first device does.
    """
    if mesh.size == 1:
        return 0
    specs = {path: leaf.sharding.spec for path, leaf in params.items()}
    sums = np.asarray(_compiled(mesh, tuple(sorted(specs.items())))(dict(params)))
    devices = list(mesh.devices.flat)
    wrong: dict[str, set[int]] = {}
    compared = 0
    for column, path in enumerate(sorted(params)):
        leaf, first = params[path], {}
        places = leaf.sharding.devices_indices_map(leaf.shape)
        for row, device in enumerate(devices):
            place = str(places[device])
            compared += place in first
            if sums[row, column] != first.setdefault(place, sums[row, column]):
                wrong.setdefault(path, set()).add(device.process_index)
    if wrong:
        processes = ", ".join(map(str, sorted(set().union(*wrong.values()))))
        raise AgreedError(  # every process has all the sums
            f"trained parameters are not the same on all devices after {step} steps: "
            f"{shorten(wrong)}, on process {processes} other than on the first device that holds "
            "them; the hosts went apart, or a chip computes wrongly: go on from the last checkpoint"
        )
    return compared


@functools.cache
def _compiled(mesh: Mesh, specs: tuple[tuple[str, PartitionSpec], ...]):
    """Sums uint32 [devices of the mesh, parameters by name], the same on every process."""

    def on_one(params: Mapping[str, Array]) -> Array:
        return jnp.stack([checksum(params[path]) for path, _ in specs])[None]

    everywhere = jax.shard_map(
        on_one,
        mesh=mesh,
        in_specs=(dict(specs),),
        out_specs=PartitionSpec(mesh.axis_names),
        check_vma=False,
    )
    shardings = {path: NamedSharding(mesh, spec) for path, spec in specs}
    return jax.jit(everywhere, in_shardings=(shardings,), out_shardings=replicated(mesh))


def checksum(leaf: Array) -> Array:
    """A 32-bit sum over the bits of a 4-byte array and their places."""
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    mixed = bits ^ (jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(_SPREAD))
    mixed = mixed * jnp.uint32(_FIRST)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(_SECOND)
    return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)
