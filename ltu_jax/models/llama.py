"""The LLaMA family by config: LLaMA-1/2/3, Vicuna, SmolLM2, Mistral, Qwen2.

They differ in sizes, grouped-query attention, RoPE base and scaling, tied output embedding, a bias
on q, k and v (Qwen2), and the epsilon of the norms: all of it is config, none of it is a subclass.
"""

import dataclasses
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.config import Config, ConfigError, require_divisible, require_positive
from ltu_jax.core.sharding import keep_rows_apart
from ltu_jax.models.attention import Attend
from ltu_jax.models.functional import Functional
from ltu_jax.models.kv_cache import KVCache, write_layer
from ltu_jax.models.layers import attend, normal_002
from ltu_jax.models.lora import LoRAConfig, LoRALinear, Masks, draw_masks, projection
from ltu_jax.models.norms import RMSNorm, mean_square
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.rope import Rope, RopeScaling, rope_tables, rotate
from ltu_jax.models.stacks import check_remat, each_layer, scan_layers, stack
from ltu_jax.models.text_batch import TextBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(Config):
    """Sizes and numerics, under the names of Hugging Face configs."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    attention_bias: bool

    def __post_init__(self) -> None:
        require_positive(self)
        require_divisible(self, "num_attention_heads", "num_key_value_heads")
        if self.head_dim % 2:
            raise ConfigError(f"LlamaConfig.head_dim is {self.head_dim}; RoPE needs an even one")


class SelfAttention(nnx.Module):
    """The four projections around grouped-query attention with rotary positions."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        lora: LoRAConfig | None,
        dtype: Any,
        quantised: bool,
        rngs: nnx.Rngs,
    ):
        self.head_dim = config.head_dim
        wide = config.num_attention_heads * config.head_dim
        narrow = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        size = config.hidden_size
        common = dict(init=normal_002, lora=lora, dtype=dtype, quantised=quantised, rngs=rngs)
        self.q_proj = projection("q_proj", size, wide, bias=bias, **common)
        self.k_proj = projection("k_proj", size, narrow, bias=bias, **common)
        self.v_proj = projection("v_proj", size, narrow, bias=bias, **common)
        self.o_proj = projection("o_proj", wide, size, bias=False, **common)

    def project(
        self, x: Float[Array, "B T E"], *, rope: Rope, masks: Masks | None
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B K T H"], Float[Array, "B K T H"]]:
        """Rotated queries and keys, and values; keys and values in the layout of the cache."""

        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:-1], -1, self.head_dim)

        q = heads(self.q_proj(x, masks=masks))
        k = heads(self.k_proj(x, masks=masks))
        v = heads(checkpoint_name(self.v_proj(x, masks=masks), "v"))
        q, k, v = (y.swapaxes(1, 2) for y in (q, k, v))
        q, k = rotate(q, rope), rotate(k, rope)
        q, k = checkpoint_name(q, "q"), checkpoint_name(k, "k")
        return q.swapaxes(1, 2), k, v

    def mix(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        *,
        visible: Bool[Array, "B T S"],
        masks: Masks | None,
        attend: Attend,
    ) -> Float[Array, "B T E"]:
        mixed = attend(q, k, v, visible=visible, scale=self.head_dim**-0.5)
        return self.o_proj(mixed, masks=masks)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        lora: LoRAConfig | None,
        dtype: Any,
        quantised: bool,
        rngs: nnx.Rngs,
    ):
        size, inner = config.hidden_size, config.intermediate_size
        common = dict(bias=False, init=normal_002, lora=lora, dtype=dtype, rngs=rngs)
        common |= dict(quantised=quantised)
        self.gate_proj = projection("gate_proj", size, inner, **common)
        self.up_proj = projection("up_proj", size, inner, **common)
        self.down_proj = projection("down_proj", inner, size, **common)

    def __call__(self, x: Float[Array, "B T E"], *, masks: Masks | None) -> Float[Array, "B T E"]:
        gate = checkpoint_name(self.gate_proj(x, masks=masks), "gate")
        up = checkpoint_name(self.up_proj(x, masks=masks), "up")
        return self.down_proj(jax.nn.silu(gate) * up, masks=masks)


class Layer(nnx.Module):
    """Pre-norm decoder layer, in two halves so that a cache can come between."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        lora: LoRAConfig | None,
        dtype: Any,
        quantised: bool,
        rngs: nnx.Rngs,
    ):
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        common = dict(lora=lora, dtype=dtype, quantised=quantised, rngs=rngs)
        self.self_attn = SelfAttention(config, **common)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMLP(config, **common)

    def project(
        self,
        x: Float[Array, "B T E"],
        *,
        rope: Rope,
        square: Float[Array, "B T 1"] | None = None,
        masks: Masks | None = None,
    ) -> tuple[Array, Array, Array]:
        normed = self.input_layernorm(x, square=square)
        return self.self_attn.project(normed, rope=rope, masks=masks)

    def finish(
        self,
        x: Float[Array, "B T E"],
        qkv: tuple[Array, Array, Array],
        *,
        visible: Bool[Array, "B T S"],
        masks: Masks | None = None,
        attend: Attend = attend,
    ) -> Float[Array, "B T E"]:
        x = x + self.self_attn.mix(*qkv, visible=visible, masks=masks, attend=attend)
        x = checkpoint_name(x, "attended")
        # A barrier between the norm and the two products keeps the TPU compiler from merging the
        # norm's gradient with theirs, which halves their speed.
        normed = jax.lax.optimization_barrier(self.post_attention_layernorm(x))
        return x + self.mlp(normed, masks=masks)


class Embedding(nnx.Module):
    """The token table."""

    def __init__(self, tokens: int, size: int, *, rngs: nnx.Rngs):
        self.embedding = nnx.Param(normal_002(rngs.params(), (tokens, size)))


class Head(nnx.Module):
    """The output layer of models that do not tie it to the token table."""

    def __init__(self, size: int, tokens: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(normal_002(rngs.params(), (size, tokens)))


class Llama(nnx.Module):
    """Decoder over embeddings, so that audio tokens can stand before text tokens."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        lora: LoRAConfig | None,
        dtype: Any,
        remat: str,
        rngs: nnx.Rngs,
        quantised: bool = False,
    ):
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = stack(
            lambda rngs: Layer(config, lora=lora, dtype=dtype, quantised=quantised, rngs=rngs),
            layers=config.num_hidden_layers,
            rngs=rngs,
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if config.tie_word_embeddings:
            self.lm_head = None
        else:
            self.lm_head = Head(config.hidden_size, config.vocab_size, rngs=rngs)

    @classmethod
    def functional(
        cls,
        config: LlamaConfig,
        *,
        dtype: Any = jnp.float32,
        remat: str = "none",
        int8_base: bool = False,
    ) -> Functional[Self]:
        """Return a language model alone, apart from its parameters `llama.*`, as in LTU-AS.

        Args:
            config: sizes.
            dtype: compute dtype of the products; float32 ones are float32 on every device.
            remat: "none", "full" or a policy name, for the backward pass of each layer.
            int8_base: kernels in int8, as in LTU-AS.
        """
        check_remat(remat)
        made = dict(lora=None, dtype=dtype, remat=remat, quantised=int8_base)
        return Functional(
            lambda rngs: cls(config, **made, rngs=rngs),
            config=config,
            prefix="llama.",
        )

    @in_own_precision
    def __call__(self, text: TextBatch) -> Float[Array, "B T V"]:
        """Return float32 logits of text without audio."""
        visible = text.visible(audio_tokens=0)
        x = self.run(self.embed(text.input_ids), positions=text.positions, visible=visible)
        return self.unembed(self.norm(x))

    @in_own_precision
    def intermediates(self, text: TextBatch) -> dict[str, Array]:
        """Return "layers" [L, B, T, E], "final_norm" [B, T, E] and "logits" of the same."""
        visible = text.visible(audio_tokens=0)
        x = self.embed(text.input_ids)
        layers, _, _ = self.trace(x, positions=text.positions, visible=visible)
        last = self.norm(layers[-1])
        return {"layers": layers, "final_norm": last, "logits": self.unembed(last)}

    def rope(self, positions: Int[Array, "B T"]) -> Rope:
        """Return the rotations of positions."""
        config = self.config
        return rope_tables(
            positions, config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling
        )

    def embed(self, ids: Int[Array, "B T"]) -> Float[Array, "B T E"]:
        """Token embeddings as the float32 start of the residual stream."""
        return self.embed_tokens.embedding[...][ids].astype(jnp.float32)

    def unembed(self, x: Float[Array, "... E"]) -> Float[Array, "... V"]:
        """Float32 logits of normed states."""
        x = x.astype(self.dtype)
        if self.lm_head is None:
            table = self.embed_tokens.embedding[...].astype(self.dtype)
            return jnp.einsum("...E,VE->...V", x, table, preferred_element_type=jnp.float32)
        kernel = self.lm_head.kernel[...].astype(self.dtype)
        return jnp.einsum("...E,EV->...V", x, kernel, preferred_element_type=jnp.float32)

    def run(
        self,
        x: Float[Array, "B T E"],
        *,
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T T"],
        dropout_key: Array | None = None,
        attend: Attend = attend,
    ) -> Float[Array, "B T E"]:
        """All layers, before the final norm; the path of training."""
        rope = self.rope(positions)

        def squared(x: Array) -> tuple[Array, Array]:
            """The mean square for the next norm too: the product that makes x sums it on the way.

            In the next round of the loop the sum would be a pass over memory of its own. The norm
            knows that it depends on x.
            """
            return x, mean_square(jax.lax.stop_gradient(x))

        def step(layer: Layer, carry: Any, masks: Masks | None) -> tuple[Any, None]:
            x, square = carry
            qkv = layer.project(x, rope=rope, square=square, masks=masks)
            x = layer.finish(x, qkv, visible=visible, masks=masks, attend=attend)
            return squared(keep_rows_apart(x)), None

        masks = None if dropout_key is None else self._masks(dropout_key, rows=x.shape[:2])
        start = squared(keep_rows_apart(x))
        return scan_layers(self.layers, step, start, masks, remat=self.remat)[0][0]

    def _masks(self, key: Array, *, rows: tuple[int, int]) -> dict[int, Int[Array, "L B T E"]]:
        """Dropout masks of all layers by word: drawn before the layers, each is written once."""
        keys = jax.random.split(key, self.config.num_hidden_layers)
        masks = {}
        for _, module in nnx.iter_modules(self.layers):
            if not isinstance(module, LoRALinear) or not module.dropout or module.word in masks:
                continue
            shape = (*rows, module.lora_a.shape[-2])
            draw = partial(draw_masks, shape=shape, rate=module.dropout)
            drawn = jax.vmap(draw)(jax.vmap(jax.random.fold_in, (0, None))(keys, module.word))
            masks[module.word] = keep_rows_apart(drawn, axis=1)
        return masks

    def trace(
        self,
        x: Float[Array, "B T E"],
        *,
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T T"],
    ) -> tuple[Float[Array, "L B T E"], Float[Array, "L B K T H"], Float[Array, "L B K T H"]]:
        """Output, keys and values of every layer."""
        rope = self.rope(positions)

        def step(layer: Layer, x: Array, _: None) -> tuple[Array, Any]:
            q, k, v = layer.project(x, rope=rope)
            x = layer.finish(x, (q, k, v), visible=visible)
            return x, (x, k, v)

        return scan_layers(self.layers, step, x)[1]

    def fill(
        self,
        x: Float[Array, "B T E"],
        *,
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T T"],
        cache: KVCache,
    ) -> tuple[Float[Array, "B T E"], KVCache]:
        """All layers over the whole prompt, its keys and values put into an empty cache."""
        rope = self.rope(positions)

        def step(layer: Layer, x: Array, _: None) -> tuple[Array, Any]:
            q, k, v = layer.project(x, rope=rope)
            return layer.finish(x, (q, k, v), visible=visible), (k, v)

        x, (k, v) = scan_layers(self.layers, step, x)
        start = (0, 0, 0, 0, 0)
        keys = jax.lax.dynamic_update_slice(cache.keys, k.astype(cache.keys.dtype), start)
        values = jax.lax.dynamic_update_slice(cache.values, v.astype(cache.values.dtype), start)
        # What the last query saw is what every later token of the row may see.
        shown = jnp.zeros_like(cache.visible).at[:, : x.shape[1]].set(visible[:, -1])
        filled = KVCache(keys=keys, values=values, visible=shown, length=jnp.int32(x.shape[1]))
        return x, filled

    def extend(
        self,
        x: Float[Array, "B T E"],
        *,
        positions: Int[Array, "B T"],
        cache: KVCache,
        layers: tuple[nnx.State, ...] | None = None,
    ) -> tuple[Float[Array, "B T E"], KVCache]:
        """All layers over new tokens that continue what is in the cache.

        `layers` are this model's own, apart (`separate_layers`): slower to compile, faster on a
        CPU.
        """
        rope = self.rope(positions)
        start, new, slots = cache.length, x.shape[1], cache.visible.shape[1]
        index = jnp.arange(slots)
        fresh = (index[None] >= start) & (index[None] <= start + jnp.arange(new)[:, None])
        visible = cache.visible[:, None] | fresh[None]

        def step(layer: Layer, carry: Any, index: Array) -> tuple[Any, None]:
            x, keys, values = carry
            q, k, v = layer.project(x, rope=rope)
            keys, k = write_layer(keys, k, layer=index, start=start)
            values, v = write_layer(values, v, layer=index, start=start)
            return (layer.finish(x, (q, k, v), visible=visible), keys, values), None

        start_of = (x, cache.keys, cache.values)
        if layers is None:
            numbers = jnp.arange(self.config.num_hidden_layers)
            (x, keys, values), _ = scan_layers(self.layers, step, start_of, numbers)
        else:
            (x, keys, values), _ = each_layer(self.layers, layers, step, start_of)
        shown = cache.visible | fresh[-1:]
        return x, KVCache(keys=keys, values=values, visible=shown, length=start + new)
