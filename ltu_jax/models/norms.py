"""LayerNorm and RMSNorm in float32, with sums over the width that may be known already.

On TPUs the product that makes x can sum it on the way; in the next round of a loop over layers that
sum would be a pass over memory of its own.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ltu_jax.core.axes import Array, Float

LAYER_NORM_EPS = 1e-5  # PyTorch's default, which Whisper, TLTR and the projection all use


def standardise(
    x: Float[Array, "... D"], *, eps: float, mean: Float[Array, "... 1"] | None = None
) -> Float[Array, "... D"]:
    """LayerNorm without scale and bias, in float32; `mean` is that of x where it is known."""
    x = x.astype(jnp.float32)
    centred = x - (x.mean(-1, keepdims=True) if mean is None else mean)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)


class LayerNorm(nnx.Module):
    """LayerNorm with scale and bias, computed and returned in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(
        self, x: Float[Array, "... D"], *, mean: Float[Array, "... 1"] | None = None
    ) -> Float[Array, "... D"]:
        scale, bias = (part[...].astype(jnp.float32) for part in (self.scale, self.bias))
        return standardise(x, eps=self.eps, mean=mean) * scale + bias


class RMSNorm(nnx.Module):
    """Root-mean-square norm with scale, computed and returned in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size))

    def __call__(
        self, x: Float[Array, "... E"], *, square: Float[Array, "... 1"] | None = None
    ) -> Float[Array, "... E"]:
        """`square` is `mean_square(x)` where that is known already."""
        x = x.astype(jnp.float32)
        square = mean_square(x) if square is None else square
        return _over_root(x, square, self.eps) * self.scale[...].astype(jnp.float32)


def mean_square(x: Float[Array, "... E"]) -> Float[Array, "... 1"]:
    """Mean of the squares over the last axis, float32."""
    return jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _over_root(x: Array, square: Array, eps: float) -> Array:
    """x over the root of its mean square; the gradient is the whole one, `square` gets none."""
    return x * lax.rsqrt(square + eps)


def _over_root_forward(x: Array, square: Array, eps: float) -> tuple[Array, tuple]:
    return _over_root(x, square, eps), (x, square)


def _over_root_backward(eps: float, residuals: tuple, g: Array) -> tuple[Array, None]:
    x, square = residuals
    inverse = lax.rsqrt(square + eps)
    along = (g * x).mean(-1, keepdims=True) * inverse**3
    return g * inverse - x * along, None


_over_root.defvjp(_over_root_forward, _over_root_backward)
