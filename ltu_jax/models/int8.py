"""Frozen kernels in int8: half the memory of bfloat16, one float32 scale per output channel.

Qwix chooses the scales (largest magnitude / 127.5) and rounds. The product is ours: int8 is exact
in bfloat16, so the scale is applied to what comes out instead of to a dequantised copy of the
kernel; the gradient of the input is then that of the dequantised kernel, by the same two factors.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.models.precision import products_of

SCALE = "_scale"  # the scales of "kernel" are called "kernel_scale"


def quantise(
    kernel: Float[Array, "... D I"],
) -> tuple[Int[Array, "... D I"], Float[Array, "... I"]]:
    """int8 values and float32 scales of kernels [..., in, out]: kernel ~ values * scale."""
    import qwix  # only runs with an int8 base need it

    axes = [axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2]
    quantised = qwix.quantize(jnp.asarray(kernel, jnp.float32), jnp.int8, channelwise_axes=axes)
    return quantised.qvalue, jnp.squeeze(quantised.scale, -2)


def quantise_on_host(
    kernel: Float[np.ndarray, "D I"],
) -> tuple[Int[np.ndarray, "D I"], Float[np.ndarray, "... I"]]:
    """`quantise` on the CPU of this host, for one kernel that is about to be placed."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        values, scale = _quantise(np.asarray(kernel))  # which makes it float32
        return np.asarray(values), np.asarray(scale)


_quantise = jax.jit(quantise)


def product(
    x: Float[Array, "... D"], values: Int[Array, "D I"], scale: Float[Array, "... I"]
) -> Float[Array, "... I"]:
    """x times the dequantised kernel, summed in float32, in the dtype of x."""
    return _product(x, values, scale)


@jax.custom_vjp
def _product(x: Array, values: Array, scale: Array) -> Array:
    y = jnp.matmul(x, values.astype(x.dtype), preferred_element_type=jnp.float32)
    return (y * scale).astype(x.dtype)


def _forward(x: Array, values: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, values, scale), (values, scale)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, None, None]:
    values, scale = saved
    scaled = (dy.astype(jnp.float32) * scale).astype(dy.dtype)
    scaled = jax.lax.optimization_barrier(scaled)
    with products_of(dy.dtype):
        dx = jnp.matmul(scaled, values.astype(dy.dtype).T, preferred_element_type=jnp.float32)
    return dx.astype(dy.dtype), None, None


_product.defvjp(_forward, _backward)
