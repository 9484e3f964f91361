"""TLTR, the time and layer-wise transformer over Whisper's layers, and the Whisper-AT tagger.

Gong et al., "Whisper-AT" (Interspeech 2023) and "Joint Audio and Speech Understanding" (ASRU
2023): one block over time within each layer, one block over layers within each time step, mean
over layers. No mask, no positions. The tagger comes in two variants: the full one works at the
width of the Whisper encoder, the low one projects each layer's features to 512 first.
"""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.config import Config, ConfigError, require_divisible, require_positive
from ltu_jax.models.functional import Functional
from ltu_jax.models.layers import Linear, WhisperBlock, fan_in_uniform
from ltu_jax.models.norms import LAYER_NORM_EPS, LayerNorm
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.stacks import check_remat, rematerialised


@dataclasses.dataclass(frozen=True, kw_only=True)
class TLTRConfig(Config):
    """Width (that of the Whisper encoder) and heads of the two blocks."""

    d_model: int
    time_heads: int
    layer_heads: int

    def __post_init__(self) -> None:
        require_positive(self)
        require_divisible(self, "d_model", "time_heads")
        require_divisible(self, "d_model", "layer_heads")


class TLTR(nnx.Module):
    """Two Whisper-style blocks; call it for LTU-AS, `pooled_first` for tagging."""

    def __init__(self, config: TLTRConfig, *, dtype: Any, remat: str, rngs: nnx.Rngs):
        self.remat = remat
        self.time_tr = WhisperBlock(config.d_model, config.time_heads, dtype=dtype, rngs=rngs)
        self.layer_tr = WhisperBlock(config.d_model, config.layer_heads, dtype=dtype, rngs=rngs)

    def over_time(self, features: Float[Array, "B W A D"]) -> Float[Array, "B W A D"]:
        """The time block, applied to each Whisper layer on its own."""
        flat = features.reshape(-1, *features.shape[2:])
        block = rematerialised(self.time_tr, remat=self.remat, looped=False)
        return block(flat).reshape(features.shape)

    def over_layers(self, x: Float[Array, "B A W D"]) -> Float[Array, "B A W D"]:
        """The layer block, applied to each time step on its own."""
        flat = x.reshape(-1, *x.shape[2:])
        block = rematerialised(self.layer_tr, remat=self.remat, looped=False)
        return block(flat).reshape(x.shape)

    def __call__(self, features: Float[Array, "B W A D"]) -> Float[Array, "B A D"]:
        """LTU-AS: all time steps are kept."""
        return self.over_layers(self.over_time(features).swapaxes(1, 2)).mean(2)

    def pooled_first(self, features: Float[Array, "B W A D"]) -> Float[Array, "B D"]:
        """Whisper-AT: the mean over time comes before the layer block."""
        pooled = self.over_time(features).mean(2)
        return self.over_layers(pooled[:, None])[:, 0].mean(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerConfig(Config):
    """A tagger: its TLTR, its labels, and the Whisper encoder whose features it reads.

    `d_input` is the encoder's width where features are projected down to the TLTR's (Whisper-AT's
    low variant), None where the two are equal (the full variant, the only one LTU-AS builds on).
    `audio_layers` is None where no encoder is known: no weight tells how many layers there are.
    """

    tltr: TLTRConfig
    labels: int
    d_input: int | None
    audio_layers: int | None

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise ConfigError(f"a tagger with {self.labels} labels; give at least 1")
        for name in ("d_input", "audio_layers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(
                    f"TaggerConfig.{name} is {getattr(self, name)}; give 1 or more, or None"
                )

    @property
    def width(self) -> int:
        """Width of the encoder features that go in."""
        return self.tltr.d_model if self.d_input is None else self.d_input


class NormedLinear(Linear):
    """LayerNorm, then a linear layer: the label head, and the low variant's way down."""

    def __init__(self, size_in: int, size_out: int, *, dtype: Any, rngs: nnx.Rngs):
        super().__init__(size_in, size_out, bias=True, init=fan_in_uniform, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(size_in, eps=LAYER_NORM_EPS)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... I"]:
        return super().__call__(self.norm(x)).astype(jnp.float32)


class Tagger(nnx.Module):
    """TLTR with a label head, as Whisper-AT trains it on frozen encoder features."""

    def __init__(self, config: TaggerConfig, *, dtype: Any, remat: str, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(dtype)
        size = config.tltr.d_model
        low = config.d_input is not None
        self.down = NormedLinear(config.width, size, dtype=dtype, rngs=rngs) if low else None
        self.tltr = TLTR(config.tltr, dtype=dtype, remat=remat, rngs=rngs)
        self.label_head = NormedLinear(size, config.labels, dtype=dtype, rngs=rngs)

    @classmethod
    def functional(
        cls, config: TaggerConfig, *, dtype: Any = jnp.float32, remat: str = "none"
    ) -> Functional[Self]:
        """Return the tagger apart from its parameters.

        Args:
            config: sizes.
            dtype: compute dtype of the products; float32 ones are float32 on every device.
            remat: "none", "full" or a policy name, for the backward pass of each block.
        """
        check_remat(remat)
        return Functional(
            lambda rngs: cls(config, dtype=dtype, remat=remat, rngs=rngs), config=config
        )

    @in_own_precision
    def __call__(self, features: Float[Array, "B W A D"]) -> Float[Array, "B V"]:
        """Return float32 logits of the labels, before the sigmoid."""
        if self.down is not None:
            features = self.down(features)
        return self.label_head(self.tltr.pooled_first(features))
