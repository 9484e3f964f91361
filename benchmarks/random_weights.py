"""Random weights made where JAX computes, a layer at a time: 7B need no more room than they take.

A kernel in int8 is the quantised kernel that a model in `dtype` of the same seed has.
"""

import zlib
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ltu_jax.core.axes import Array
from ltu_jax.models.int8 import SCALE, quantise
from ltu_jax.weights.lineage import is_adapter

_SPREAD = 0.02  # of embeddings, biases and the LoRA branch, which would otherwise be zero


def draw(
    shapes: Mapping[str, jax.ShapeDtypeStruct], *, dtype: str, seed: int
) -> dict[str, jax.Array]:
    """Draw every parameter of a language model or LTU-AS.

    Args:
        shapes: of `Functional`; of kernels in int8 their scales too.
        dtype: of the base LLaMA; what lies outside it is float32.
        seed: of everything; a parameter's numbers depend on it and on the path alone.
    """
    found: dict[str, jax.Array] = {}
    for path, leaf in shapes.items():
        if path.endswith(SCALE):
            continue
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()) & 0x7FFFFFFF)
        name = path.rpartition(".")[2]
        plain = "float32" if is_adapter(path) else dtype
        settings = dict(shape=leaf.shape, name=name, dtype=plain)
        if path + SCALE in shapes:
            found[path], found[path + SCALE] = _quantised(key, **settings)
        else:
            found[path] = _plain(key, **settings)
    return found


def _matrix(key: Array, *, shape: tuple[int, ...], name: str, dtype: str) -> Array:
    if name == "scale":
        return jnp.ones(shape, dtype)
    spread = shape[-2] ** -0.5 if name in ("kernel", "lora_a") else _SPREAD
    return (spread * jax.random.normal(key, shape)).astype(dtype)


@partial(jax.jit, static_argnames=("shape", "name", "dtype"))
def _plain(key: Array, *, shape: tuple[int, ...], name: str, dtype: str) -> Array:
    if len(shape) < 3:
        return _matrix(key, shape=shape, name=name, dtype=dtype)
    one = partial(_matrix, shape=shape[1:], name=name, dtype=dtype)
    return lax.map(one, jax.random.split(key, shape[0]))


@partial(jax.jit, static_argnames=("shape", "name", "dtype"))
def _quantised(key: Array, *, shape: tuple[int, ...], name: str, dtype: str) -> tuple[Array, Array]:
    def one(key: Array) -> tuple[Array, Array]:
        return quantise(_matrix(key, shape=shape[1:], name=name, dtype=dtype))

    return lax.map(one, jax.random.split(key, shape[0]))
