"""Lay stored numbers on a mesh, each device given its own part, without a whole model in memory."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltu_jax.core.sharding import param_shardings
from ltu_jax.core.trees import Params
from ltu_jax.models.int8 import SCALE, quantise_on_host
from ltu_jax.weights.store import check_against
from ltu_jax.weights.tensors import Tensor, Tensors


def place(tensors: Tensors, *, mesh: Mesh, dtypes: Mapping[str, Any]) -> Params:
    """Lay tensors on `mesh`, each in `dtypes[path]`, every device given only its own part.

    The parts are read from the file when the device is filled, a block at a time.
    """
    shardings = param_shardings(mesh, tensors)
    return {
        path: jax.make_array_from_callback(
            tensor.shape, shardings[path], _Regions(tensor, np.dtype(dtypes[path]))
        )
        for path, tensor in tensors.items()
    }


def place_language_model(
    tensors: Tensors,
    shapes: Mapping[str, Any],
    *,
    base_dtype: str,
    dtype: str,
    mesh: Mesh,
    subject: str,
) -> Params:
    """Place a language model, alone or in a whole LTU-AS, its kernels in int8 where it asks for it.

    Args:
        tensors: the weights by path, at any precision.
        shapes: what the model asks for; with int8 every quantised kernel has its scales there.
        base_dtype: "int8", or the dtype of all parameters.
        dtype: what int8 leaves whole is in.
        mesh: where to.
        subject: how an error calls the weights.

    Raises:
        UserError: weights of another model.
    """
    scales = [path for path in shapes if path.endswith(SCALE)]
    check_against(
        {p: leaf for p, leaf in shapes.items() if p not in scales}, tensors, subject=subject
    )
    placed = {path: leaf for path, leaf in tensors.items() if path in shapes}
    for scale in scales:
        kernel = scale.removesuffix(SCALE)
        placed[kernel], placed[scale] = quantised(tensors[kernel])
    return place(placed, mesh=mesh, dtypes=base_dtypes(shapes, base_dtype=base_dtype, dtype=dtype))


def base_dtypes(shapes: Mapping[str, Any], *, base_dtype: str, dtype: str) -> dict[str, np.dtype]:
    """Return the dtype of each parameter of a frozen language model, by path."""
    if base_dtype != "int8":
        return dict.fromkeys(shapes, jnp.dtype(base_dtype))
    whole = jnp.dtype(dtype)  # embeddings and norms
    scales = {path for path in shapes if path.endswith(SCALE)}
    return {
        path: leaf.dtype if path in scales or path + SCALE in scales else whole
        for path, leaf in shapes.items()
    }


class _Regions:
    """A tensor's parts by index; the last one is kept, for devices that hold the same part."""

    def __init__(self, tensor: Tensor, dtype: np.dtype):
        self._tensor, self._dtype = tensor, dtype
        self._held: tuple[str, np.ndarray] | None = None

    def __call__(self, index: tuple[slice, ...]) -> np.ndarray:
        name = str(index)
        if self._held is None or self._held[0] != name:
            self._held = None  # before the next one is read
            self._held = (name, self._tensor.region(index, self._dtype))
        return self._held[1]


def quantised(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values [L, in, out] and float32 scales [L, out] of stacked kernels.

    Scales belong to a whole column, so a device that holds a part of one still gets the values
    that the whole would have. A layer's scales are small, and kept when its values are read: the
    file is read once where values are asked for first.
    """
    known: dict[int, np.ndarray] = {}

    def values(start: int, stop: int) -> np.ndarray:
        def of(layer: int) -> np.ndarray:
            made, known[layer] = quantise_on_host(kernel.layer(layer))
            return made

        return np.stack([of(layer) for layer in range(start, stop)])

    def scales(start: int, stop: int) -> np.ndarray:
        layers = range(start, stop)
        return np.stack(
            [known[i] if i in known else quantise_on_host(kernel.layer(i))[1] for i in layers]
        )

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
