"""Low-rank adapters: a trainable product of two thin matrices beside a frozen projection."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.config import Config, ConfigError
from ltu_jax.models.layers import Init, Linear, fan_in_uniform, product

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Where the dropout mask of each projection comes from: which random word per element of its input,
# and whether from its upper half. Projections of the same input share a word.
MASKS = {
    "q_proj": (0, False),
    "v_proj": (0, True),
    "k_proj": (1, False),
    "o_proj": (2, False),
    "gate_proj": (3, False),
    "up_proj": (3, True),
    "down_proj": (4, False),
}
Masks = Mapping[int, Int[Array, "B T E"]]  # of a layer, by word


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAConfig(Config):
    """The projections with an adapter, and its rank; the branch is scaled by alpha / rank."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRAConfig.rank is {self.rank}; it must be at least 1")
        if not math.isfinite(self.alpha):
            raise ConfigError(f"LoRAConfig.alpha is {self.alpha}; give a finite number")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"LoRAConfig.dropout is {self.dropout}; it must be in [0, 1)")
        wrong = [name for name in self.targets if name not in PROJECTIONS]
        if wrong or not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(
                f"LoRAConfig.targets is {self.targets}; give each of {PROJECTIONS} at most once, "
                "and at least one"
            )


class LoRAParam(nnx.Param):
    """A parameter of an adapter."""


class LoRALinear(Linear):
    """y = x W + b + dropout(x) A B * alpha / rank, as PEFT computes it (B starts at zero)."""

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        bias: bool,
        init: Init,
        lora: LoRAConfig,
        dtype: Any,
        rngs: nnx.Rngs,
        word: int,
        upper: bool,
        quantised: bool = False,
    ):
        super().__init__(
            size_in, size_out, bias=bias, init=init, dtype=dtype, rngs=rngs, quantised=quantised
        )
        self.scale = lora.alpha / lora.rank
        self.dropout = lora.dropout
        self.word, self.upper = word, upper
        # Kaiming-uniform with a = sqrt(5) is uniform within 1/sqrt(fan in).
        self.lora_a = LoRAParam(fan_in_uniform(rngs.params(), (size_in, lora.rank)))
        self.lora_b = LoRAParam(jnp.zeros((lora.rank, size_out)))

    def __call__(
        self, x: Float[Array, "... E"], *, masks: Masks | None = None
    ) -> Float[Array, "... D"]:
        y = super().__call__(x)
        x = x.astype(self.dtype)
        if masks:
            x = dropped(x, masks[self.word], rate=self.dropout, upper=self.upper)
        low = checkpoint_name(product(x, self.lora_a[...]), "low_rank")
        return y + product(low, self.lora_b[...]) * self.scale


def draw_masks(key: Array, shape: tuple[int, ...], *, rate: float) -> Int[Array, "..."]:
    """Draw two dropout masks as the lowest bits of uint8, 1 where an element is kept.

    A random word serves both, one by its lower and one by its upper half: to draw it is most of
    what dropout costs. The rate is rounded to 1/65,536.
    """
    words = jax.random.bits(key, shape, jnp.uint32)
    lower, upper = (half >= _cut(rate) for half in (words & 0xFFFF, words >> 16))
    return lower.astype(jnp.uint8) + 2 * upper.astype(jnp.uint8)


def dropped(
    x: Float[Array, "... E"], masks: Int[Array, "... E"], *, rate: float, upper: bool
) -> Float[Array, "... E"]:
    """Apply dropout by one of two masks (`draw_masks`); what is kept is divided by its share."""
    return jnp.where(masks & (2 if upper else 1) > 0, x / (1.0 - _cut(rate) / 65_536), 0)


def _cut(rate: float) -> int:
    """Return how many of 65,536 are dropped."""
    return round(rate * 65_536)


class PlainLinear(Linear):
    """A projection without adapter, callable like one with."""

    def __call__(
        self, x: Float[Array, "... E"], *, masks: Masks | None = None
    ) -> Float[Array, "... D"]:
        return super().__call__(x)


def projection(
    name: str,
    size_in: int,
    size_out: int,
    *,
    bias: bool,
    init: Init,
    lora: LoRAConfig | None,
    dtype: Any,
    rngs: nnx.Rngs,
    quantised: bool = False,
) -> LoRALinear | PlainLinear:
    """Return the projection `name`, with adapter if `lora` targets it, in int8 if `quantised`."""
    common = dict(bias=bias, init=init, dtype=dtype, rngs=rngs, quantised=quantised)
    if lora is not None and name in lora.targets:
        word, upper = MASKS[name]
        return LoRALinear(size_in, size_out, lora=lora, word=word, upper=upper, **common)
    return PlainLinear(size_in, size_out, **common)
