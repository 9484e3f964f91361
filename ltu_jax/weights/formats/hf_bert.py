"""BERT encoders in Hugging Face directories: the table, and a config.json read strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.weights.files import shards
from ltu_jax.weights.files.config_json import positive, read_settings, whole
from ltu_jax.weights.name_tables import SAME, Import, NameRule, dense, norm, rule
from ltu_jax.weights.tensors import Tensor, WeightsError

# what our BERT computes; a config.json that says otherwise is another model
_SETTINGS = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_POSITION_IDS = "embeddings.position_ids"  # a buffer that transformers saved until 4.31
# The head of next-sentence prediction: no token's state goes through it.
_POOLER = ("pooler.dense.weight", "pooler.dense.bias")


def _hf_rules() -> tuple[NameRule, ...]:
    foreign = "encoder.layer.{layer}"
    return (
        rule("embeddings.word_embeddings.weight", "tokens", SAME),
        rule("embeddings.position_embeddings.weight", "positions", SAME),
        rule("embeddings.token_type_embeddings.weight", "segments", SAME),
        *norm("embeddings.LayerNorm", "embed_ln"),
        *dense(f"{foreign}.attention.self.query", "blocks.query"),
        *dense(f"{foreign}.attention.self.key", "blocks.key"),
        *dense(f"{foreign}.attention.self.value", "blocks.value"),
        *dense(f"{foreign}.attention.output.dense", "blocks.out"),
        *norm(f"{foreign}.attention.output.LayerNorm", "blocks.attn_ln"),
        *dense(f"{foreign}.intermediate.dense", "blocks.up"),
        *dense(f"{foreign}.output.dense", "blocks.down"),
        *norm(f"{foreign}.output.LayerNorm", "blocks.mlp_ln"),
    )


HF_RULES = _hf_rules()


def from_hf(path: str | Path) -> Import:
    """Open a Hugging Face BERT directory (safetensors or .bin) as `BertModel` saves it.

    The pooler is left out, and position ids are checked to count up from 0.

    Raises:
        UserError: no directory, another architecture, a config.json that lacks a size.
    """
    path = Path(path)
    if not path.is_dir():
        raise WeightsError(f"{path} is not a Hugging Face directory (config.json and weights)")
    settings = read_settings(path / "config.json")
    if settings.get("model_type") != "bert":
        raise WeightsError(
            f"{path}: weights of another architecture: found model_type "
            f"{settings.get('model_type')}, expected bert"
        )
    for key, value in _SETTINGS.items():
        if settings.get(key, value) != value:
            raise WeightsError(f"{path}: {key} {settings[key]!r} is not implemented; {value!r} is")
    config: dict[str, Any] = {key: whole(settings, key, subject=str(path)) for key in _SIZES}
    config["layer_norm_eps"] = positive(settings, "layer_norm_eps", subject=str(path))
    tensors = shards.read_checkpoint(path)
    _check_position_ids(tensors, path=path)
    unused = (_POSITION_IDS, *_POOLER)
    return Import(
        config=config,
        rules=HF_RULES,
        tensors={name: tensor for name, tensor in tensors.items() if name not in unused},
        files={},
        source={"format": "hf-bert", "name": settings.get("_name_or_path") or path.name},
    )


def _check_position_ids(tensors: Mapping[str, Tensor], *, path: Path) -> None:
    ids = tensors.get(_POSITION_IDS)
    if ids is not None and not np.array_equal(ids.read().ravel(), np.arange(ids.shape[-1])):
        raise WeightsError(f"{path}: {_POSITION_IDS} does not count up from 0")
