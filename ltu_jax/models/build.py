"""From a config to pure functions over flat parameters.

fns = build.ltu_as(config, dtype=jnp.bfloat16, remat="full")
fns.shapes                     what a weights file must hold, without allocating anything
params = fns.init(key)         random parameters
fns.forward(params, ids, ...)  a pure function: jit, grad and shard it as you like
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.trees import Params, merge
from ltu_jax.models.attention import backend as attention_backend
from ltu_jax.models.bridge import Shapes, bridge
from ltu_jax.models.kv_cache import KVCache, WhisperCache, empty_kv_cache
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig, visibility
from ltu_jax.models.precision import keep_promise
from ltu_jax.models.stacks import rematerialised, separate_layers
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Decoder, Encoder, WhisperConfig


def _whisper_size(
    *,
    state: int,
    heads: int,
    layers: int,
    text_layers: int | None = None,
    mels: int = 80,
    vocab: int = 51865,
) -> WhisperConfig:
    return WhisperConfig(
        n_mels=mels,
        n_audio_ctx=1500,
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_vocab=vocab,
        n_text_ctx=448,
        n_text_state=state,
        n_text_head=heads,
        n_text_layer=layers if text_layers is None else text_layers,
    )


_TINY, _BASE = dict(state=384, heads=6, layers=4), dict(state=512, heads=8, layers=6)
_SMALL, _MEDIUM = dict(state=768, heads=12, layers=12), dict(state=1024, heads=16, layers=24)
_LARGE = dict(state=1280, heads=20, layers=32)

# OpenAI's sizes; the English-only vocabularies are one token shorter, large-v3 added a language.
WHISPER_SIZES: dict[str, WhisperConfig] = {
    "tiny": _whisper_size(**_TINY),
    "tiny.en": _whisper_size(**_TINY, vocab=51864),
    "base": _whisper_size(**_BASE),
    "base.en": _whisper_size(**_BASE, vocab=51864),
    "small": _whisper_size(**_SMALL),
    "small.en": _whisper_size(**_SMALL, vocab=51864),
    "medium": _whisper_size(**_MEDIUM),
    "medium.en": _whisper_size(**_MEDIUM, vocab=51864),
    "large-v1": _whisper_size(**_LARGE),
    "large-v2": _whisper_size(**_LARGE),
    "large-v3": _whisper_size(**_LARGE, mels=128, vocab=51866),
    "turbo": _whisper_size(**_LARGE, text_layers=4, mels=128, vocab=51866),
}

_LLAMA_7B = LlamaConfig(  # LLaMA-1 and Vicuna v1.1
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tie_word_embeddings=False,
    attention_bias=False,
)
LLAMA_SIZES: dict[str, LlamaConfig] = {
    "llama-7b": _LLAMA_7B,
    "llama-13b": dataclasses.replace(
        _LLAMA_7B,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=40,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        rms_norm_eps=1e-5,
        rope_theta=100_000.0,
        rope_scaling=None,
        tie_word_embeddings=True,
        attention_bias=False,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperFns:
    """Whisper as pure functions; the encoder's need only `encoder.*`, the decoder's `decoder.*`."""

    config: WhisperConfig
    shapes: Shapes
    init: Callable[[Array], Params]
    encode: Callable[[Params, Array], Float[Array, "B T D"]]
    states: Callable[[Params, Array], Float[Array, "B W T D"]]
    features: Callable[[Params, Array], Float[Array, "B W A D"]]
    init_cache: Callable[..., WhisperCache]
    decode: Callable[[Params, Array, WhisperCache], tuple[Array, WhisperCache]]


def whisper(config: WhisperConfig, *, dtype: Any = jnp.float32, remat: str = "none") -> WhisperFns:
    """Whisper's functions.

    encode(params, log_mel[B,F,M]) -> [B,F/2,D]; states -> [B,W+1,F/2,D]; features -> [B,W,A,D];
    init_cache(params, encoded, *, length) -> cache; decode(params, tokens[B,T], cache) -> (float32
    logits [B,T,V], cache).

    Args:
        config: sizes.
        dtype: compute dtype of the products; float32 ones are float32 on every device.
        remat: "none", "full" or a policy name, for gradients through `encode`.
    """
    _check_remat(remat)
    encoder = bridge(
        lambda rngs: Encoder(config, dtype=dtype, remat=remat, rngs=rngs), prefix="encoder."
    )
    decoder = bridge(lambda rngs: Decoder(config, dtype=dtype, rngs=rngs), prefix="decoder.")

    def init(key: Array) -> Params:
        first, second = jax.random.split(key)
        return merge(encoder.init(first), decoder.init(second))

    def init_cache(params: Params, encoded: Float[Array, "B T D"], *, length: int) -> WhisperCache:
        return decoder.bind(params).init_cache(encoded, length=length)

    fns = WhisperFns(
        config=config,
        shapes=merge(encoder.shapes, decoder.shapes),
        init=init,
        encode=lambda params, log_mel: encoder.bind(params).encode(log_mel),
        states=lambda params, log_mel: encoder.bind(params).states(log_mel),
        features=lambda params, log_mel: encoder.bind(params).features(log_mel),
        init_cache=init_cache,
        decode=lambda params, tokens, cache: decoder.bind(params).decode(tokens, cache),
    )
    return keep_promise(fns, dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaFns:
    """A language model alone, over parameters named `llama.*` as within LTU-AS."""

    config: LlamaConfig
    shapes: Shapes
    init: Callable[[Array], Params]
    forward: Callable[..., Float[Array, "B T V"]]
    intermediates: Callable[..., dict[str, Array]]


def llama(config: LlamaConfig, *, dtype: Any = jnp.float32, remat: str = "none") -> LlamaFns:
    """forward(params, ids[B,T], *, segment_ids[B,T], positions[B,T]) -> float32 logits [B,T,V];
    intermediates of the same -> "layers" [L,B,T,E], "final_norm" [B,T,E], "logits".
    """
    _check_remat(remat)
    module = bridge(
        lambda rngs: Llama(config, lora=None, dtype=dtype, remat=remat, rngs=rngs), prefix="llama."
    )

    def forward(
        params: Params,
        ids: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
    ) -> Float[Array, "B T V"]:
        model = module.bind(params)
        visible = visibility(segment_ids, audio_tokens=0)
        x = model.run(model.embed(ids), positions=positions, visible=visible)
        return model.unembed(model.norm(x))

    def intermediates(
        params: Params,
        ids: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
    ) -> dict[str, Array]:
        model = module.bind(params)
        visible = visibility(segment_ids, audio_tokens=0)
        layers, _, _ = model.trace(model.embed(ids), positions=positions, visible=visible)
        last = model.norm(layers[-1])
        return {"layers": layers, "final_norm": last, "logits": model.unembed(last)}

    fns = LlamaFns(
        config=config,
        shapes=module.shapes,
        init=module.init,
        forward=forward,
        intermediates=intermediates,
    )
    return keep_promise(fns, dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LTUASFns:
    """LTU-AS as pure functions over the flat parameters named in `shapes`."""

    config: LTUASConfig
    shapes: Shapes
    init: Callable[[Array], Params]
    embed_audio: Callable[[Params, Array], Float[Array, "B A E"]]
    embed_text: Callable[[Params, Array], Float[Array, "B T E"]]
    hidden: Callable[..., Float[Array, "B T E"]]
    unembed: Callable[[Params, Array], Float[Array, "... V"]]
    forward: Callable[..., Float[Array, "B T V"]]
    prefill: Callable[..., tuple[Float[Array, "B V"], KVCache]]
    extend: Callable[..., tuple[Float[Array, "B V"], KVCache]]
    init_cache: Callable[[int, int], KVCache]
    layers: Callable[[Params], tuple[Any, ...]]
    intermediates: Callable[..., dict[str, Array]]


def ltu_as(
    config: LTUASConfig,
    *,
    dtype: Any = jnp.float32,
    remat: str = "none",
    with_lora: bool = True,
    attention: str = "xla",
    longest_pair: int | None = None,
    mesh: Mesh | None = None,
    int8_base: bool = False,
    lay_audio: Callable[[Array], Array] | None = None,
) -> LTUASFns:
    """LTU-AS's functions; see `LTUASFns` and the methods of `models.ltu_as.LTUAS`.

    hidden and forward take (params, input_ids[B,T], features[B,W,A,D] or None, *, segment_ids[B,T],
    positions[B,A+T], dropout_key=None), or for G clips a row features[B,G,W,A,D],
    positions[B,G*A+T] and clip_ids[B,T], the clip 0..G-1 of each text position; unembed takes
    states of any leading shape, so that a loss can ask for the logits of its targets only; prefill
    also takes cache; extend takes (params, ids[B,T], *, positions[B,T], cache, layers=None), where
    layers(params) are the language model's layers as arrays of their own: on a CPU `extend` reads
    them without copying.

    Args:
        config: sizes.
        dtype: compute dtype of the products and of the cache.
        remat: "none", "full" or a policy name, for the backward pass of each layer.
        with_lora: False leaves the adapters out even where the config has them (stage 1).
        attention: backend of `hidden` and `forward`, a name of `models.attention.BACKENDS`;
            prompts and cached decoding use "xla".
        longest_pair: most text tokens of a pair, which "blocks" relies on.
        mesh: where it runs, for backends that must be told.
        int8_base: each projection of the language model has an int8 "kernel" and a float32
            "kernel_scale" of its outputs; see `models.int8`.
        lay_audio: called on the audio tokens [B,A,E] before they join the text, to lay them on a
            mesh (see `core.sharding.AudioLayout`); None leaves them.
    """
    _check_remat(remat)
    backend = attention_backend(attention, mesh=mesh, longest_pair=longest_pair)
    if not with_lora:
        config = dataclasses.replace(config, lora=None)
    module = bridge(
        lambda rngs: LTUAS(
            config,
            dtype=dtype,
            remat=remat,
            attention=backend,
            quantised=int8_base,
            lay_audio=lay_audio,
            rngs=rngs,
        )
    )

    def hidden(
        params: Params,
        input_ids: Int[Array, "B T"],
        features: Float[Array, "B *G W A D"] | None,
        *,
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B S"],
        dropout_key: Array | None = None,
        clip_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T E"]:
        return module.bind(params).hidden(
            input_ids,
            features,
            segment_ids=segment_ids,
            positions=positions,
            dropout_key=dropout_key,
            clip_ids=clip_ids,
        )

    def init_cache(batch: int, length: int) -> KVCache:
        return empty_kv_cache(
            layers=config.llama.num_hidden_layers,
            batch=batch,
            kv_heads=config.llama.num_key_value_heads,
            length=length,
            head_dim=config.llama.head_dim,
            dtype=dtype,
        )

    def call(method: str) -> Callable[..., Any]:
        return lambda params, *args, **kwargs: getattr(module.bind(params), method)(*args, **kwargs)

    fns = LTUASFns(
        config=config,
        shapes=module.shapes,
        init=module.init,
        embed_audio=call("embed_audio"),
        embed_text=call("embed_text"),
        hidden=hidden,
        unembed=lambda params, states: module.bind(params).llama.unembed(states),
        forward=call("__call__"),
        prefill=call("prefill"),
        extend=call("extend"),
        init_cache=init_cache,
        layers=lambda params: separate_layers(module.bind(params).llama.layers),
        intermediates=call("intermediates"),
    )
    return keep_promise(fns, dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerFns:
    """The Whisper-AT tagger as pure functions."""

    config: TaggerConfig
    shapes: Shapes
    init: Callable[[Array], Params]
    logits: Callable[[Params, Array], Float[Array, "B V"]]


def tagger(
    config: TLTRConfig,
    n_labels: int,
    *,
    d_input: int | None = None,
    dtype: Any = jnp.float32,
    remat: str = "none",
) -> TaggerFns:
    """logits(params, features[B,W,A,D]) -> float32 [B, n_labels], before the sigmoid.

    Args:
        config: sizes of the TLTR.
        n_labels: how many labels.
        d_input: width of features that are projected down to the TLTR's; None: they have it.
        dtype: compute dtype of the products; float32 ones are float32 on every device.
        remat: "none", "full" or a policy name, for the backward pass of each block.
    """
    _check_remat(remat)
    whole = TaggerConfig(tltr=config, labels=n_labels, d_input=d_input, audio_layers=None)
    module = bridge(lambda rngs: Tagger(whole, dtype=dtype, remat=remat, rngs=rngs))
    fns = TaggerFns(
        config=whole,
        shapes=module.shapes,
        init=module.init,
        logits=lambda params, features: module.bind(params)(features),
    )
    return keep_promise(fns, dtype)


def _check_remat(remat: str) -> None:
    # A wrong name must fail here, not inside a trace.
    rematerialised(lambda: None, remat=remat, looped=True)
