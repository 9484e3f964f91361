"""LTU-AS at the sizes of the benchmarks: "tiny" for tests, "cpu" as `:mini`, "7b" as the paper."""

import dataclasses

from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.tltr import TLTRConfig

SIZES = ("tiny", "cpu", "7b")
TINY_LLAMA = dataclasses.replace(
    LLAMA_SIZES["smollm2-135m"],
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=16,
)
_LLAMA = {"tiny": TINY_LLAMA, "cpu": LLAMA_SIZES["smollm2-135m"], "7b": LLAMA_SIZES["llama-7b"]}
_WHISPER = {"tiny": (32, 2), "cpu": (384, 4), "7b": (1280, 32)}  # width, layers


def ltu_as(size: str, *, llama: LlamaConfig | None = None) -> LTUASConfig:
    """Return the config of a size, over its own language model or over `llama`."""
    width, layers = _WHISPER[size]
    return LTUASConfig(
        tltr=TLTRConfig(d_model=width, time_heads=1, layer_heads=8),
        llama=llama or _LLAMA[size],
        lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
        audio_layers=layers,
        audio_tokens=25,
    )
