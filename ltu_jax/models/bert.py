"""BERT's encoder and the sentence vector of Sentence-Transformers: mean over tokens, length 1.

Devlin et al., "BERT" (2019), as Hugging Face's `BertModel` computes it: learned absolute positions,
one segment, post-norm blocks, the exact (erf) GELU. Everything is float32, products included.
"""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.config import Config, ConfigError, require_divisible, require_positive
from ltu_jax.models.functional import Functional
from ltu_jax.models.layers import Linear, attend, gelu, normal_002
from ltu_jax.models.norms import LayerNorm
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.stacks import scan_layers, stack


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(Config):
    """Sizes under their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    def __post_init__(self) -> None:
        require_positive(self)
        require_divisible(self, "hidden_size", "num_attention_heads")


class BertBlock(nnx.Module):
    """Attention and MLP, each followed by the LayerNorm of its sum with the input."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        size, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        common = dict(bias=True, init=normal_002, dtype=jnp.float32, rngs=rngs)
        self.query = Linear(size, size, **common)
        self.key = Linear(size, size, **common)
        self.value = Linear(size, size, **common)
        self.out = Linear(size, size, **common)
        self.attn_ln = LayerNorm(size, eps=eps)
        self.up = Linear(size, config.intermediate_size, **common)
        self.down = Linear(config.intermediate_size, size, **common)
        self.mlp_ln = LayerNorm(size, eps=eps)

    def __call__(
        self, x: Float[Array, "B T D"], *, visible: Bool[Array, "B T S"]
    ) -> Float[Array, "B T D"]:
        q, k, v = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = attend(
            q, k.swapaxes(1, 2), v.swapaxes(1, 2), visible=visible, scale=q.shape[-1] ** -0.5
        )
        x = self.attn_ln(x + self.out(mixed))
        return self.mlp_ln(x + self.down(gelu(self.up(x))))

    def _split(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)


class Bert(nnx.Module):
    """Token ids to states, in float32 on every device."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(jnp.float32)  # in fewer bits near ties would flip
        size = config.hidden_size

        def table(rows: int) -> nnx.Param:
            return nnx.Param(normal_002(rngs.params(), (rows, size)))

        self.tokens = table(config.vocab_size)
        self.positions = table(config.max_position_embeddings)
        self.segments = table(config.type_vocab_size)
        self.embed_ln = LayerNorm(size, eps=config.layer_norm_eps)
        self.blocks = stack(
            lambda rngs: BertBlock(config, rngs=rngs), layers=config.num_hidden_layers, rngs=rngs
        )

    @classmethod
    def functional(cls, config: BertConfig) -> Functional[Self]:
        """Return the encoder apart from its parameters."""
        return Functional(lambda rngs: cls(config, rngs=rngs), config=config)

    @in_own_precision
    def __call__(
        self, ids: Int[Array, "B T"], *, real: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Return the last states; tokens that are not `real` are seen by none.

        Raises:
            ConfigError: more tokens than there are positions.
        """
        length, positions = ids.shape[1], self.positions[...]
        if length > len(positions):
            raise ConfigError(f"{length} tokens; this BERT has {len(positions)} positions")
        x = self.embed_ln(self.tokens[...][ids] + positions[:length] + self.segments[...][0])
        visible = jnp.broadcast_to(real[:, None], (len(ids), length, length))
        x, _ = scan_layers(self.blocks, lambda block, x, _: (block(x, visible=visible), None), x)
        return x

    def sentences(self, ids: Int[Array, "B T"], *, real: Bool[Array, "B T"]) -> Float[Array, "B D"]:
        """Return one vector of length 1 a row."""
        return _pooled(self(ids, real=real), real)


def _pooled(states: Float[Array, "B T D"], real: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Mean over the real tokens, then length 1; at least one token of each row is real."""
    weight: Any = real[:, :, None].astype(jnp.float32)
    mean = (states * weight).sum(1) / weight.sum(1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
