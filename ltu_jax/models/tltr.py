"""TLTR, the time and layer-wise transformer over Whisper's layers, and the Whisper-AT tagger.

Gong et al., "Whisper-AT" (Interspeech 2023) and "Joint Audio and Speech Understanding" (ASRU
2023): one block over time within each layer, one block over layers within each time step, mean
over layers. No mask, no positions.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array, Float
from ltu_jax.models.config import Config, require_divisible, require_positive
from ltu_jax.models.layers import (
    LAYER_NORM_EPS,
    LayerNorm,
    Linear,
    WhisperBlock,
    fan_in_uniform,
    rematerialised,
)


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
        return rematerialised(self.time_tr, remat=self.remat)(flat).reshape(features.shape)

    def over_layers(self, x: Float[Array, "B A W D"]) -> Float[Array, "B A W D"]:
        """The layer block, applied to each time step on its own."""
        flat = x.reshape(-1, *x.shape[2:])
        return rematerialised(self.layer_tr, remat=self.remat)(flat).reshape(x.shape)

    def __call__(self, features: Float[Array, "B W A D"]) -> Float[Array, "B A D"]:
        """LTU-AS: all time steps are kept."""
        return self.over_layers(self.over_time(features).swapaxes(1, 2)).mean(2)

    def pooled_first(self, features: Float[Array, "B W A D"]) -> Float[Array, "B D"]:
        """Whisper-AT: the mean over time comes before the layer block."""
        pooled = self.over_time(features).mean(2)
        return self.over_layers(pooled[:, None])[:, 0].mean(1)


class LabelHead(Linear):
    """LayerNorm and a linear layer to label logits."""

    def __init__(self, size: int, labels: int, *, dtype: Any, rngs: nnx.Rngs):
        super().__init__(size, labels, bias=True, init=fan_in_uniform, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(size, eps=LAYER_NORM_EPS)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B V"]:
        return super().__call__(self.norm(x)).astype(jnp.float32)


class Tagger(nnx.Module):
    """TLTR with a label head, as Whisper-AT trains it on frozen encoder features."""

    def __init__(self, config: TLTRConfig, *, labels: int, dtype: Any, remat: str, rngs: nnx.Rngs):
        self.tltr = TLTR(config, dtype=dtype, remat=remat, rngs=rngs)
        self.label_head = LabelHead(config.d_model, labels, dtype=dtype, rngs=rngs)

    def __call__(self, features: Float[Array, "B W A D"]) -> Float[Array, "B V"]:
        return self.label_head(self.tltr.pooled_first(features))
