"""A complete LTU-AS with random weights, small enough to answer in milliseconds."""

import dataclasses
from pathlib import Path

import numpy as np

from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.store import save_weights

WIDTH, LAYERS = 32, 2


def whisper_config() -> WhisperConfig:
    return WhisperConfig(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=WIDTH,
        n_audio_head=2,
        n_audio_layer=LAYERS,
        n_vocab=64,
        n_text_ctx=16,
        n_text_state=WIDTH,
        n_text_head=2,
        n_text_layer=1,
    )


def ltu_as_config() -> LTUASConfig:
    return LTUASConfig(
        tltr=TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=2),
        llama=LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            rms_norm_eps=1e-6,
            rope_theta=10_000.0,
            rope_scaling=None,
            tie_word_embeddings=False,
            attention_bias=False,
        ),
        lora=LoRAConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj", "v_proj")),
        audio_layers=LAYERS,
        audio_tokens=25,
    )


def save(folder: Path, *, tokenizer: Path) -> dict[str, Path]:
    """Write "ltu-as" and "whisper" weights directories with random numbers into `folder`."""
    made = {}
    for kind, config, fns, seed in (
        ("whisper", whisper_config(), Whisper(whisper_config()), 0),
        ("ltu-as", ltu_as_config(), LTUAS.functional(ltu_as_config()), 1),
    ):
        generator = np.random.default_rng(seed)
        params = {
            name: generator.normal(scale=0.2, size=leaf.shape).astype(np.float32)
            for name, leaf in fns.shapes.items()
        }
        files = {"tokenizer.model": tokenizer}
        save_weights(
            folder / kind,
            kind=kind,
            config=dataclasses.asdict(config),
            params=params,
            source={"test": "random"},
            files=files if kind == "ltu-as" else {},
        )
        made[kind] = folder / kind
    return made
