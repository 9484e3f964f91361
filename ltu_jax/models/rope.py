"""Rotary positions: frequencies, tables of angles, and the rotation of heads."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.config import Config, ConfigError, require_positive

Rope = tuple[Float[Array, "B T H"], Float[Array, "B T H"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling(Config):
    """LLaMA-3's stretching of the slow RoPE frequencies for long contexts."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        require_positive(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"RopeScaling.high_freq_factor is {self.high_freq_factor}; it must be above "
                f"low_freq_factor, which is {self.low_freq_factor}"
            )


def rope_frequencies(
    head_dim: int, *, theta: float, scaling: RopeScaling | None
) -> Float[Array, "H"]:
    """Radians per position of each pair of head dimensions [head_dim / 2], float32."""
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    rates = 1.0 / theta**exponents
    if scaling is None:
        return rates
    # Periods longer than the low limit are stretched by the factor, periods shorter than the high
    # limit are kept, and those between are blended.
    turns = scaling.original_max_position_embeddings * rates / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    keep = jnp.clip((turns - scaling.low_freq_factor) / span, 0.0, 1.0)
    return rates * (keep + (1.0 - keep) / scaling.factor)


def rope_tables(
    positions: Int[Array, "B T"], head_dim: int, *, theta: float, scaling: RopeScaling | None
) -> Rope:
    """Cosines and sines of the rotation angles [B, T, head_dim / 2], float32."""
    frequencies = rope_frequencies(head_dim, theta=theta, scaling=scaling)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B N T H"], rope: Rope) -> Float[Array, "B N T H"]:
    """Rotate the pairs (i, i + H/2) in float32: the half-split order of Hugging Face weights."""
    if x.dtype == jnp.bfloat16:
        return _rotate_whole(x, rope)
    cos, sin = (table[:, None] for table in rope)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


@jax.custom_vjp
def _rotate_whole(x: Float[Array, "B N T H"], rope: Rope) -> Float[Array, "B N T H"]:
    """The same of bfloat16 heads without cutting them: halves leave half of a TPU's lanes empty.

    A product with a permutation puts the other half beside each half, exactly: it sums one number.
    """
    half = x.shape[-1] // 2
    swap = np.roll(np.eye(2 * half), half, axis=1) * np.repeat([1.0, -1.0], half)[:, None]
    other = jnp.einsum(
        "BNTH,HI->BNTI", x, jnp.asarray(swap, x.dtype), preferred_element_type=jnp.float32
    )
    cos, sin = (jnp.concatenate([table, table], axis=-1)[:, None] for table in rope)
    return (x.astype(jnp.float32) * cos + other * sin).astype(x.dtype)


def _rotate_forward(x: Array, rope: Rope) -> tuple[Array, Rope]:
    return _rotate_whole(x, rope), rope


def _rotate_backward(rope: Rope, g: Array) -> tuple[Array, None]:
    cos, sin = rope
    return _rotate_whole(g, (cos, -sin)), None


_rotate_whole.defvjp(_rotate_forward, _rotate_backward)
