"""The published sizes of Whisper and of the language models that configs and plans name."""

import dataclasses

from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.whisper import WhisperConfig


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
