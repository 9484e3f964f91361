"""Whisper in OpenAI's own checkpoints: {"dims": sizes, "model_state_dict": tensors} in a `.pt`.

The published files (tiny ... large-v3, turbo) are float16 and hold every parameter and the
encoder's fixed positions; the decoder's mask and the alignment heads are buffers that OpenAI's code
makes itself. The output layer is the token embedding. There is no tokenizer in them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import shorten
from ltu_jax.weights import export_record
from ltu_jax.weights.files import torch_file
from ltu_jax.weights.formats import name_prefixes
from ltu_jax.weights.formats.hf_whisper import config_from_shapes
from ltu_jax.weights.formats.whisper_tokens import given_tokenizer
from ltu_jax.weights.name_tables import (
    SAME,
    Import,
    NameRule,
    attention_block,
    convolutions,
    export,
    norm,
    rule,
)
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

# `ModelDimensions` of OpenAI's code, in its order; our config has the same names
DIMS = (
    "n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer",
    "n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer",
)  # fmt: skip


def _rules() -> tuple[NameRule, ...]:
    convs = convolutions("encoder.{}.", "encoder")
    return (
        rule("encoder.positional_embedding", "encoder.positions", SAME),
        *convs,
        *attention_block("encoder.blocks.{layer}", "encoder.blocks"),
        *norm("encoder.ln_post", "encoder.ln_post"),
        rule("decoder.positional_embedding", "decoder.positions", SAME),
        rule("decoder.token_embedding.weight", "decoder.embedding", SAME),
        *attention_block("decoder.blocks.{layer}", "decoder.blocks", cross=True),
        *norm("decoder.ln", "decoder.ln"),
    )


RULES = _rules()
_ANCHORS = ("encoder.conv1.weight", "decoder.token_embedding.weight")


def from_openai(path: str | Path, *, tokenizer: str | Path | None = None) -> Import:
    """Open a Whisper `.pt` as OpenAI publishes them, or as its code saves a fine-tuned one.

    Args:
        path: the file.
        tokenizer: where to take the tokenizer from, see `given_tokenizer`; without it the
            weights can encode audio, not transcribe.

    Raises:
        WeightsError: no such checkpoint, sizes that its tensors contradict, another tokenizer.
    """
    path = Path(path)
    dims, tensors = _opened(path)
    config = config_from_shapes(
        {name: tensor.shape for name, tensor in tensors.items()},
        names=(
            "encoder.conv1.weight", "encoder.positional_embedding",
            "decoder.token_embedding.weight", "decoder.positional_embedding",
        ),
        depth=lambda side: sum(
            name.startswith(f"{side}.blocks.") and name.endswith(".mlp.0.weight")
            for name in tensors
        ),
        heads=(dims["n_audio_head"], dims["n_text_head"]),
        subject=str(path),
    )  # fmt: skip
    wrong = [f"{k} is {dims[k]}, the tensors say {config[k]}" for k in DIMS if dims[k] != config[k]]
    if wrong:
        raise WeightsError(
            f"{path}: its dims contradict its tensors: {'; '.join(wrong)}. One of them was "
            "changed by hand; take the file as it was published"
        )
    files: dict[str, Any] = {}
    notes: tuple[str, ...] = (
        "a .pt has no tokenizer: these weights can encode audio, not transcribe; import again with "
        "--tokenizer DIR (a Hugging Face Whisper of the same vocabulary) to add one",
    )
    if tokenizer is not None:
        files, notes = given_tokenizer(tokenizer, config), ()
    told = export_record.read(path)
    return Import(
        config=config,
        rules=RULES,
        tensors=tensors,
        files=files,
        source={"format": "openai-whisper", "name": path.name},
        notes=notes,
        facts=told.facts if told is not None and told.kind == "whisper" else {},
    )


def _opened(path: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    tree = torch_file.read_torch_tree(path)
    dims, tensors = tree.get("dims"), tree.get("model_state_dict")
    if not isinstance(dims, Mapping) or not isinstance(tensors, Mapping):
        raise WeightsError(
            f"{path} is not an OpenAI Whisper checkpoint: that is a dict of 'dims' and "
            f"'model_state_dict', this one has {shorten(map(str, tree))}"
        )
    missing, surplus = set(DIMS) - set(dims), set(map(str, dims)) - set(DIMS)
    if missing or surplus:
        raise WeightsError(
            f"{path}: its dims are not those of Whisper: "
            + "; ".join(
                f"{shorten(names)} {word}"
                for names, word in ((missing, "missing"), (surplus, "unknown"))
                if names
            )
        )
    odd = [name for name in DIMS if type(dims[name]) is not int or dims[name] < 1]
    if odd:
        raise WeightsError(f"{path}: {odd[0]} is {dims[odd[0]]!r}; dims are positive integers")
    loose = [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]
    if loose:
        kind = type(tensors[loose[0]]).__name__
        raise WeightsError(f"{path}: {loose[0]!r} in its model_state_dict is a {kind}, no tensor")
    return dict(dims), {**name_prefixes.unwrapped(tensors, anchors=_ANCHORS, subject=str(path))[0]}


def to_openai(
    config: Mapping[str, int], params: Tensors
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Return our parameters as OpenAI's code wants them.

    Returns:
        (dims, state dict): `{"dims": dims, "model_state_dict": state}` is the file.
    """
    return {name: int(config[name]) for name in DIMS}, export(RULES, params)
