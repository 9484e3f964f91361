"""Whisper: audio encoder (every hidden layer available) and text decoder with a cache.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022). Convolutions
of width 3, fixed sinusoidal positions in the encoder, learned ones in the decoder, output layer
tied to the token embedding.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.config import Config, require_divisible, require_positive
from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import Params, merge
from ltu_jax.models.functional import Functional, Shapes
from ltu_jax.models.kv_cache import WhisperCache, causal_slots, write_layer
from ltu_jax.models.layers import (
    WhisperAttention,
    WhisperBlock,
    WhisperMLP,
    fan_in_uniform,
    gelu,
    normal_002,
)
from ltu_jax.models.norms import LAYER_NORM_EPS, LayerNorm
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.stacks import check_remat, scan_layers, stack

POOL = 20  # encoder steps per audio token: 0.4 s, the pooling of LTU-AS and Whisper-AT


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperConfig(Config):
    """Sizes of a Whisper model, under the names of OpenAI's checkpoints."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        require_positive(self)
        require_divisible(self, "n_audio_state", "n_audio_head")
        require_divisible(self, "n_text_state", "n_text_head")


def sinusoids(length: int, size: int) -> np.ndarray:
    """Return fixed positions [length, size]: sines, then cosines, of log-spaced periods."""
    steps = np.arange(size // 2)
    rates = np.exp(-np.log(10_000.0) / (size // 2 - 1) * steps)
    angles = np.arange(length)[:, None] * rates[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class Conv(nnx.Module):
    """Convolution of width 3 over time, zero padding of 1 on both sides."""

    def __init__(self, size_in: int, size_out: int, *, stride: int, dtype: Any, rngs: nnx.Rngs):
        self.stride = stride
        self.dtype = jnp.dtype(dtype)
        self.kernel = nnx.Param(fan_in_uniform(rngs.params(), (3, size_in, size_out)))
        bound = (3 * size_in) ** -0.5
        draw = jax.random.uniform(rngs.params(), (size_out,), minval=-bound, maxval=bound)
        self.bias = nnx.Param(draw)

    def __call__(self, x: Float[Array, "B F M"]) -> Float[Array, "B T D"]:
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(self.stride,),
            padding=((1, 1),),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return y + self.bias[...].astype(self.dtype)


class Encoder(nnx.Module):
    """Log-mel frames (10 ms) to states (20 ms)."""

    def __init__(self, config: WhisperConfig, *, dtype: Any, remat: str, rngs: nnx.Rngs):
        size = config.n_audio_state
        self.n_mels, self.dtype, self.remat = config.n_mels, jnp.dtype(dtype), remat
        self.conv1 = Conv(config.n_mels, size, stride=1, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(size, size, stride=2, dtype=dtype, rngs=rngs)
        self.positions = nnx.Param(jnp.asarray(sinusoids(config.n_audio_ctx, size)))
        self.blocks = stack(
            lambda rngs: WhisperBlock(size, config.n_audio_head, dtype=dtype, rngs=rngs),
            layers=config.n_audio_layer,
            rngs=rngs,
        )
        self.ln_post = LayerNorm(size, eps=LAYER_NORM_EPS)

    def embed(self, log_mel: Float[Array, "B F M"]) -> Float[Array, "B T D"]:
        """Return the input of the first block: two convolutions with exact GELU, plus positions."""
        positions = self.positions[...]
        frames, mels = log_mel.shape[1:]
        if mels != self.n_mels or frames % 2 or frames > 2 * positions.shape[0]:
            raise UserError(
                f"log-mel of {frames} frames x {mels} bins; this Whisper takes an even number of "
                f"frames up to {2 * positions.shape[0]} with {self.n_mels} bins"
            )
        x = gelu(self.conv1(log_mel))
        x = gelu(self.conv2(x))
        return x.astype(jnp.float32) + positions[: frames // 2].astype(jnp.float32)

    @in_own_precision
    def encode(self, log_mel: Float[Array, "B F M"]) -> Float[Array, "B T D"]:
        """Return the last state after the final LayerNorm: what the decoder attends to."""
        x, _ = scan_layers(
            self.blocks,
            lambda block, x, _: (block(x), None),
            self.embed(log_mel),
            remat=self.remat,
        )
        return self.ln_post(x)

    @in_own_precision
    def states(self, log_mel: Float[Array, "B F M"]) -> Float[Array, "B W T D"]:
        """Return the first block's input and every block's output (W = layers + 1), not normed."""
        x = self.embed(log_mel)
        _, outputs = scan_layers(self.blocks, lambda block, x, _: _twice(block(x)), x)
        return jnp.concatenate([x[None], outputs]).swapaxes(0, 1)

    @in_own_precision
    def features(self, log_mel: Float[Array, "B *G F M"]) -> Float[Array, "B *G W A D"]:
        """Return every block's output, mean over 20 steps: the input of TLTR (facts, behaviour 25).

        Pools inside the scan, so the full states of all layers never exist together.
        """
        if log_mel.ndim == 4:  # several clips a row
            flat = self.features(log_mel.reshape(-1, *log_mel.shape[2:]))
            return flat.reshape(*log_mel.shape[:2], *flat.shape[1:])
        x = self.embed(log_mel)
        steps = x.shape[1]
        if steps % POOL:
            raise UserError(
                f"log-mel of {log_mel.shape[1]} frames; features need a multiple of {2 * POOL}"
            )

        # A product with a pooling matrix: to cut the steps into groups of 20 would copy all states
        # into another layout on a TPU, whose tiles have 8 steps.
        pooling = np.repeat(np.eye(steps // POOL, dtype=np.float32), POOL, axis=1) / POOL

        def pool(block: WhisperBlock, carry: tuple[Array, Array], _: None) -> tuple[Any, Array]:
            x, mean = carry
            x = block(x, mean=mean)
            pooled = jnp.einsum("AT,BTD->BAD", pooling, x, precision=lax.Precision.HIGHEST)
            # For the next block's norm: the product that makes x sums it on the way.
            return (x, x.mean(-1, keepdims=True)), pooled

        start = (x, x.mean(-1, keepdims=True))
        return scan_layers(self.blocks, pool, start)[1].swapaxes(0, 1)


def _twice(x: Array) -> tuple[Array, Array]:
    return x, x


class DecoderBlock(nnx.Module):
    """Pre-norm block with causal self-attention, cross-attention and MLP."""

    def __init__(self, size: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.attn_ln = LayerNorm(size, eps=LAYER_NORM_EPS)
        self.attn = WhisperAttention(size, heads, dtype=dtype, rngs=rngs)
        self.cross_attn_ln = LayerNorm(size, eps=LAYER_NORM_EPS)
        self.cross_attn = WhisperAttention(size, heads, dtype=dtype, rngs=rngs)
        self.mlp_ln = LayerNorm(size, eps=LAYER_NORM_EPS)
        self.mlp = WhisperMLP(size, dtype=dtype, rngs=rngs)


class Decoder(nnx.Module):
    """Text decoder; all attention goes through a `WhisperCache`."""

    def __init__(self, config: WhisperConfig, *, dtype: Any, rngs: nnx.Rngs):
        size = config.n_text_state
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.embedding = nnx.Param(normal_002(rngs.params(), (config.n_vocab, size)))
        self.positions = nnx.Param(normal_002(rngs.params(), (config.n_text_ctx, size)))
        self.blocks = stack(
            lambda rngs: DecoderBlock(size, config.n_text_head, dtype=dtype, rngs=rngs),
            layers=config.n_text_layer,
            rngs=rngs,
        )
        self.ln = LayerNorm(size, eps=LAYER_NORM_EPS)

    @in_own_precision
    def init_cache(self, encoded: Float[Array, "B A D"], *, length: int) -> WhisperCache:
        """Make room for `length` tokens a row; compute cross-attention keys and values once."""
        config = self.config
        if length > config.n_text_ctx:
            raise UserError(
                f"a decoder cache of {length} tokens; this Whisper has {config.n_text_ctx}"
            )
        _, (cross_keys, cross_values) = scan_layers(
            self.blocks, lambda block, _, __: (None, block.cross_attn.keys_values(encoded)), None
        )
        heads = config.n_text_head
        head_dim = config.n_text_state // heads
        shape = (config.n_text_layer, encoded.shape[0], heads, length, head_dim)
        return WhisperCache(
            keys=jnp.zeros(shape, self.dtype),
            values=jnp.zeros(shape, self.dtype),
            cross_keys=cross_keys,
            cross_values=cross_values,
            length=jnp.int32(0),
        )

    @in_own_precision
    def decode(
        self, tokens: Int[Array, "B T"], cache: WhisperCache
    ) -> tuple[Float[Array, "B T V"], WhisperCache]:
        """Append `tokens` to every row; return float32 logits for the token after each of them."""
        new, start, slots = tokens.shape[1], cache.length, cache.keys.shape[3]
        positions = lax.dynamic_slice_in_dim(self.positions[...], start, new)
        table = self.embedding[...]
        x = table[tokens].astype(jnp.float32) + positions.astype(jnp.float32)
        visible = causal_slots(slots=slots, start=start, new=new)[None]

        def step(block: DecoderBlock, carry: Any, inputs: Any) -> tuple[Any, None]:
            x, keys, values = carry
            layer, cross_k, cross_v = inputs
            h = block.attn_ln(x)
            k, v = block.attn.keys_values(h)
            keys, k = write_layer(keys, k, layer=layer, start=start)
            values, v = write_layer(values, v, layer=layer, start=start)
            x = x + block.attn.mix(block.attn.queries(h), k, v, visible=visible)
            q = block.cross_attn.queries(block.cross_attn_ln(x))
            x = x + block.cross_attn.mix(q, cross_k, cross_v)
            x = x + block.mlp(block.mlp_ln(x))
            return (x, keys, values), None

        layers = jnp.arange(self.config.n_text_layer)
        (x, keys, values), _ = scan_layers(
            self.blocks,
            step,
            (x, cache.keys, cache.values),
            (layers, cache.cross_keys, cache.cross_values),
        )
        x = self.ln(x).astype(self.dtype)
        table = table.astype(self.dtype)
        logits = jnp.einsum("BTD,VD->BTV", x, table, preferred_element_type=jnp.float32)
        return logits, dataclasses.replace(cache, keys=keys, values=values, length=start + new)


class Whisper:
    """Encoder and decoder apart from their parameters; each reads only those of its prefix.

    Attributes:
        config: sizes.
    """

    def __init__(self, config: WhisperConfig, *, dtype: Any = jnp.float32, remat: str = "none"):
        """Describe both; each is built when it is first asked for.

        Args:
            config: sizes.
            dtype: compute dtype of the products; float32 ones are float32 on every device.
            remat: "none", "full" or a policy name, for gradients through `Encoder.encode`.
        """
        check_remat(remat)
        self.config, self._dtype, self._remat = config, dtype, remat

    @functools.cached_property
    def encoder(self) -> Functional[Encoder]:
        """Return the encoder, over `encoder.*`."""
        options = dict(dtype=self._dtype, remat=self._remat)
        return Functional(
            lambda rngs: Encoder(self.config, **options, rngs=rngs),
            config=self.config,
            prefix="encoder.",
        )

    @functools.cached_property
    def decoder(self) -> Functional[Decoder]:
        """Return the decoder, over `decoder.*`."""
        return Functional(
            lambda rngs: Decoder(self.config, dtype=self._dtype, rngs=rngs),
            config=self.config,
            prefix="decoder.",
        )

    @functools.cached_property
    def shapes(self) -> Shapes:
        """Return path -> shape and dtype of every parameter of both."""
        return merge(self.encoder.shapes, self.decoder.shapes)

    def init(self, key: Array) -> Params:
        """Return random parameters of both."""
        first, second = jax.random.split(key)
        return merge(self.encoder.init(first), self.decoder.init(second))
