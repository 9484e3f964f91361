"""Small random models and files that several tests of weights need."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.weights import store
from ltu_jax.weights.formats import official_ltu_as
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.tensors import Tensor

# What the golden model's config.json says and its weights cannot.
OFFICIAL_CONFIG = {"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}


def llama_config(**changes) -> LlamaConfig:
    """Grouped-query, untied LLaMA of 3 layers."""
    values = dict(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=50_000.0,
        rope_scaling=None,
        tie_word_embeddings=False,
        attention_bias=False,
    )
    return LlamaConfig(**(values | changes))


def ltu_as_config(llama: LlamaConfig, *, targets=("q_proj", "v_proj")) -> LTUASConfig:
    """TLTR of width 16 over 2 Whisper layers; LoRA of rank 4, scale 3."""
    lora = LoRAConfig(rank=4, alpha=12.0, dropout=0.1, targets=targets) if targets else None
    return LTUASConfig(
        tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=4),
        llama=llama,
        lora=lora,
        audio_layers=2,
        audio_tokens=25,
    )


def released_config(
    size: str = "llama-7b", *, rank: int | None = 8, targets=("q_proj", "v_proj"), **llama
) -> LTUASConfig:
    """LTU-AS at its true size; rank None is stage 1, `llama` changes the language model."""
    lora = (
        None if rank is None else LoRAConfig(rank=rank, alpha=16.0, dropout=0.05, targets=targets)
    )
    return LTUASConfig(
        tltr=TLTRConfig(d_model=1280, time_heads=1, layer_heads=8),
        llama=dataclasses.replace(LLAMA_SIZES[size], **llama),
        lora=lora,
        audio_layers=32,
        audio_tokens=25,
    )


def hollow(shapes) -> dict[str, Tensor]:
    """Tensors of any size that fail the test when they are read."""

    def read() -> np.ndarray:
        raise AssertionError("a number was read where shapes were enough")

    return {
        n: Tensor(shape=tuple(s), dtype=np.dtype("float16"), read=read) for n, s in shapes.items()
    }


def opened(found: Import, kind: str, *, what: str = "FILE") -> tuple[dict, dict[str, Tensor]]:
    """Config and parameters of an import, still to be read."""
    config, shapes = model_shapes(kind, found.config)
    return config, found.params(shapes, subject=what)


def numbers(tensors) -> dict[str, np.ndarray]:
    """Every tensor read."""
    return {name: tensor.read() for name, tensor in tensors.items()}


def identical(found, wanted) -> None:
    """Require the same names, dtypes, shapes and bits."""
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        truth = wanted[name]
        assert array.dtype == truth.dtype and array.shape == truth.shape, name
        assert array.tobytes() == truth.tobytes(), name


def save(folder: Path, kind: str, config, params) -> Path:
    """A weights directory of ours."""
    store.save_weights(folder, kind=kind, config=as_dict(config), params=params, source={})
    return folder


def random_params(fns, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Every parameter random and none at a neutral value, as numpy float32."""
    rng = np.random.default_rng(seed)
    return {
        path: (rng.standard_normal(leaf.shape) * 0.2 + path.endswith("scale")).astype(np.float32)
        for path, leaf in fns.shapes.items()
    }


def write_config(folder: Path, **changes) -> Path:
    """The config file for `--llama` of the golden model."""
    file = folder / "llama.json"
    file.write_text(json.dumps(OFFICIAL_CONFIG | changes))
    return file


def as_dict(config) -> dict:
    """A config as it is stored."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def logits(config: LlamaConfig, params, ids) -> np.ndarray:
    """Our logits [B,T,V] of unpadded ids."""
    ids = np.asarray(ids)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    forward = jax.jit(Llama.functional(config).pure(Llama.__call__))
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    return np.asarray(forward(dict(params), text))


def official_shapes(config, shapes, **options):
    """Official names and shapes of a model of `config` (LTUASConfig dict) and flat `shapes`."""
    official = official_ltu_as.to_official(config, hollow(shapes), **options)
    return {name: tensor.shape for name, tensor in official.items()}
