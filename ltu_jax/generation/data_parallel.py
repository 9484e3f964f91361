"""The rows of a batch over the devices of this process, each with a whole copy of the weights.

Answering needs no exchange between rows, so it is the fastest layout wherever the weights fit; and
processes need not move in step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class DataParallel:
    """The devices of rows and copies. One device: everything stays where JAX puts it."""

    def __init__(self, devices: Sequence[jax.Device] = ()):
        self.count = max(len(devices), 1)
        self._mesh = Mesh(np.asarray(devices), ("rows",)) if self.count > 1 else None

    def rows(self, tree: Any) -> Any:
        """Lay the leading axis of every array over the devices; scalars are copied."""
        if self._mesh is None:
            return tree

        def put(array: Any) -> jax.Array:
            spec = PartitionSpec("rows") if np.ndim(array) else PartitionSpec()
            return jax.device_put(array, NamedSharding(self._mesh, spec))

        return jax.tree.map(put, tree)

    def copies(self, tree: Any) -> Any:
        """Put a whole copy of every array on each device."""
        if self._mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def on_one(self, rows: int, sizes: Sequence[int]) -> int:
        """Return how many `padded` rows share a memory: a CPU's fake devices share the host's."""
        shared = self._mesh is None or self._mesh.devices.flat[0].platform == "cpu"
        return self.padded(rows, sizes) // (1 if shared else self.count)

    def padded(self, rows: int, sizes: Sequence[int]) -> int:
        """Return how many rows to compute for `rows`: a size of the list that the devices divide.

        Beyond the last size, multiples of it.
        """
        size = next((size for size in sizes if size >= rows), -(-rows // sizes[-1]) * sizes[-1])
        return -(-size // self.count) * self.count
