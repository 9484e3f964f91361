"""The rows of a batch over the devices that answer; weights are whole on each, or in parts.

Answering needs no exchange between rows, so copies are the fastest layout wherever the weights fit,
and processes need not move in step. Where they do not fit, a mesh with fsdp or tensor parts lays
them out as in training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltu_jax.core.sharding import AXES, BATCH, batch_ways, param_shardings


class DataParallel:
    """The devices of rows and weights. One device: everything stays where JAX puts it.

    Attributes:
        mesh: (data, fsdp, tensor) of devices; None for one.
        count: the parts into which the rows of a batch are cut.
    """

    def __init__(self, devices: Sequence[jax.Device] = (), *, mesh: Mesh | None = None):
        """Take devices that each hold a copy of the weights, or a mesh that may hold parts."""
        if mesh is None and len(devices) > 1:
            mesh = Mesh(np.asarray(devices).reshape(-1, 1, 1), AXES)
        self.mesh = None if mesh is None or mesh.size == 1 else mesh
        self.count = 1 if self.mesh is None else batch_ways(self.mesh)

    def rows(self, tree: Any) -> Any:
        """Lay the leading axis of every array over the devices; scalars are copied."""
        if self.mesh is None:
            return jax.device_put(tree)

        def put(array: Any) -> jax.Array:
            spec = PartitionSpec(BATCH) if np.ndim(array) else PartitionSpec()
            return jax.device_put(array, NamedSharding(self.mesh, spec))

        return jax.tree.map(put, tree)

    def copies(self, tree: Any) -> Any:
        """Put a whole copy of every array on each device."""
        if self.mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def weights(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Lay parameters on the devices by `core.sharding.PARAM_RULES`."""
        if self.mesh is None:
            return params
        return jax.device_put(dict(params), param_shardings(self.mesh, params))

    def to_host(self, tree: Any) -> Any:
        """Return arrays laid by this object as numpy, on every process that the mesh spans."""
        leaves = jax.tree.leaves(tree)
        if all(leaf.is_fully_addressable for leaf in leaves):
            return jax.device_get(tree)
        return multihost_utils.process_allgather(tree, tiled=True)

    def on_one(self, rows: int, sizes: Sequence[int]) -> int:
        """Return how many `padded` rows share a memory: a CPU's fake devices share the host's."""
        shared = self.mesh is None or self.mesh.devices.flat[0].platform == "cpu"
        return self.padded(rows, sizes) // (1 if shared else self.count)

    def padded(self, rows: int, sizes: Sequence[int]) -> int:
        """Return how many rows to compute for `rows`: a size of the list that the devices divide.

        Beyond the last size, multiples of it.
        """
        size = next((size for size in sizes if size >= rows), -(-rows // sizes[-1]) * sizes[-1])
        return -(-size // self.count) * self.count
