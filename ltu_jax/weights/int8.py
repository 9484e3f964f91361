"""Stored kernels as int8 values and scales, quantised layer by layer when they are read."""

from collections.abc import Callable

import numpy as np

from ltu_jax.models.int8 import quantise_on_host
from ltu_jax.weights.tensors import Tensor


def quantised(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values [L, in, out] and float32 scales [L, out] of stacked kernels [L, in, out].

    Scales belong to a whole column, so a device that holds a part of one still gets the values
    that the whole would have. Values and scales are read apart: the file is read twice.
    """

    def reader(which: int) -> Callable[[int, int], np.ndarray]:
        def rows(start: int, stop: int) -> np.ndarray:
            return np.stack([quantise_on_host(kernel.layer(i))[which] for i in range(start, stop)])

        return rows

    values, scales = reader(0), reader(1)
    layers, _, size_out = kernel.shape
    return (
        Tensor(
            shape=kernel.shape,
            dtype=np.dtype(np.int8),
            read=lambda: values(0, layers),
            rows=values,
        ),
        Tensor(
            shape=(layers, size_out),
            dtype=np.dtype(np.float32),
            read=lambda: scales(0, layers),
            rows=scales,
        ),
    )
