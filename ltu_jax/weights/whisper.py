"""Whisper: the Hugging Face table, sizes from shapes, and the tokenizer files of every source.

What a Whisper weights directory carries for transcription, besides the parameters:

- `tokenizer.json` (the `tokenizers` library; copied from the source). Byte-level BPE plus the
  special tokens from <|endoftext|> to <|notimestamps|>. The 1,501 timestamp tokens that follow
  have NO entry: id `timestamp_begin + k` is the time `0.02 * k` seconds. So drop ids
  >= `timestamp_begin` before `Tokenizer.decode`. `encode(text, add_special_tokens=False)` works;
  the pre-tokenizer puts a space in front of the text, as Whisper's transcripts have it.
- `generation.json`, made here: {"multilingual": bool, "suppress_tokens": [int],
  "begin_suppress_tokens": [int], "special": {"eot", "sot", "translate", "transcribe",
  "sot_lm", "sot_prev", "no_speech", "no_timestamps", "timestamp_begin": int},
  "languages": {"en": id, ...}}. `suppress_tokens` is OpenAI's "-1" set (non-speech symbols plus
  the task tokens); `begin_suppress_tokens` are the blank and <|endoftext|>. An English-only
  model (vocabulary 51864) has the prompt [sot] or [sot, no_timestamps]; a multilingual one
  [sot, language, task(, no_timestamps)]. Special ids follow from the vocabulary size exactly as
  in OpenAI's tokenizer; they are checked against tokenizer.json.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.files import read_json
from ltu_jax.weights import io
from ltu_jax.weights.io import WeightsError
from ltu_jax.weights.rules import (
    CONV,
    SAME,
    Import,
    Rule,
    Shapes,
    architecture,
    dense,
    norm,
    rule,
)

ENGLISH_VOCAB = 51864  # larger vocabularies are multilingual
# the order in which OpenAI's tokenizer numbers them, after the languages
_AFTER_LANGUAGES = (
    "translate", "transcribe", "sot_lm", "sot_prev", "no_speech", "no_timestamps",
)  # fmt: skip


def _hf_rules() -> tuple[Rule, ...]:
    def attention(foreign: str, ours: str) -> tuple[Rule, ...]:
        return (
            *dense(f"{foreign}.k_proj", f"{ours}.key", bias=False),
            *dense(f"{foreign}.v_proj", f"{ours}.value"),
            *dense(f"{foreign}.q_proj", f"{ours}.query"),
            *dense(f"{foreign}.out_proj", f"{ours}.out"),
        )

    def side(name: str, embedding: Sequence[Rule], cross: bool, final: str) -> tuple[Rule, ...]:
        foreign, ours = f"{name}.layers.{{layer}}", f"{name}.blocks"
        return (
            *embedding,
            rule(f"{name}.embed_positions.weight", f"{name}.positions", SAME),
            *attention(f"{foreign}.self_attn", f"{ours}.attn"),
            *norm(f"{foreign}.self_attn_layer_norm", f"{ours}.attn_ln"),
            *(attention(f"{foreign}.encoder_attn", f"{ours}.cross_attn") if cross else ()),
            *(norm(f"{foreign}.encoder_attn_layer_norm", f"{ours}.cross_attn_ln") if cross else ()),
            *dense(f"{foreign}.fc1", f"{ours}.mlp.up"),
            *dense(f"{foreign}.fc2", f"{ours}.mlp.down"),
            *norm(f"{foreign}.final_layer_norm", f"{ours}.mlp_ln"),
            *norm(f"{name}.layer_norm", f"{name}.{final}"),
        )

    convs = [
        entry
        for number in (1, 2)
        for entry in (
            rule(f"encoder.conv{number}.weight", f"encoder.conv{number}.kernel", CONV),
            rule(f"encoder.conv{number}.bias", f"encoder.conv{number}.bias", SAME),
        )
    ]
    embedding = rule("decoder.embed_tokens.weight", "decoder.embedding", SAME)
    return side("encoder", convs, False, "ln_post") + side("decoder", [embedding], True, "ln")


HF_RULES = _hf_rules()


def from_hf(path: str | Path) -> Import:
    """Open a Hugging Face Whisper directory (safetensors or .bin, with config.json).

    Raises:
        WeightsError: another model_type, an output that is not tied, missing files.
    """
    path = Path(path)
    settings = read_json(path / "config.json")
    if settings.get("model_type") != "whisper":
        raise WeightsError(
            f"{path}: weights of another architecture: found model_type "
            f"{settings.get('model_type')}, expected whisper"
        )
    tensors = {
        name.removeprefix("model."): tensor for name, tensor in io.read_checkpoint(path).items()
    }
    embedding = tensors.get("decoder.embed_tokens.weight")
    output = tensors.pop("proj_out.weight", None)
    both = output is not None and embedding is not None
    if both and not np.array_equal(output.read(), embedding.read()):
        raise WeightsError(f"{path}: proj_out.weight differs from the embedding; not tied")
    config = config_from_shapes(
        {name: tensor.shape for name, tensor in tensors.items()},
        names=(
            "encoder.conv1.weight", "encoder.embed_positions.weight",
            "decoder.embed_tokens.weight", "decoder.embed_positions.weight",
        ),
        depth=lambda side: sum(
            name.startswith(f"{side}.layers.") and name.endswith(".fc1.weight") for name in tensors
        ),
        heads=(settings["encoder_attention_heads"], settings["decoder_attention_heads"]),
        what=str(path),
    )  # fmt: skip
    generation = path / "generation_config.json"
    found = settings | (read_json(generation) if generation.is_file() else {})
    files, notes = tokenizer_files(
        [path], config,
        suppress=found.get("suppress_tokens"), begin=found.get("begin_suppress_tokens"),
    )  # fmt: skip
    return Import(
        config=config,
        rules=HF_RULES,
        tensors=tensors,
        files=files,
        source={"format": "hf-whisper", "name": settings.get("_name_or_path") or path.name},
        notes=notes,
    )


def config_from_shapes(
    shapes: Shapes, *, names: Sequence[str], depth: Any, heads: tuple[int, int], what: str
) -> dict[str, int]:
    """WhisperConfig as a dict, every size from the shapes."""
    absent = [name for name in names if name not in shapes]
    if absent:
        found = architecture(shapes)
        kind = f"weights of another architecture: found {found}" if found else "not a Whisper"
        raise WeightsError(f"{what}: {kind}; {', '.join(absent)} missing")
    conv, audio, vocabulary, text = (shapes[name] for name in names)
    return {
        "n_mels": conv[1],
        "n_audio_ctx": audio[0],
        "n_audio_state": audio[1],
        "n_audio_head": heads[0],
        "n_audio_layer": depth("encoder"),
        "n_vocab": vocabulary[0],
        "n_text_ctx": text[0],
        "n_text_state": text[1],
        "n_text_head": heads[1],
        "n_text_layer": depth("decoder"),
    }


def special_tokens(n_vocab: int, *, languages: int) -> dict[str, int]:
    """Special ids of OpenAI's Whisper tokenizers by vocabulary size (its numbering rule)."""
    eot = 50256 if n_vocab == ENGLISH_VOCAB else 50257
    special = {"eot": eot, "sot": eot + 1}
    special |= {name: eot + 2 + languages + i for i, name in enumerate(_AFTER_LANGUAGES)}
    return special | {"timestamp_begin": special["no_timestamps"] + 1}


def tokenizer_files(
    folders: Sequence[Path],
    config: Mapping[str, int],
    *,
    suppress: Sequence[int] | None,
    begin: Sequence[int] | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    found = next((f / "tokenizer.json" for f in folders if (f / "tokenizer.json").is_file()), None)
    if found is None:
        return {}, ("no tokenizer.json beside the weights: these can encode audio, not transcribe",)
    added = {entry["content"]: entry["id"] for entry in read_json(found)["added_tokens"]}
    names = {
        "eot": "<|endoftext|>", "sot": "<|startoftranscript|>", "translate": "<|translate|>",
        "transcribe": "<|transcribe|>", "sot_lm": "<|startoflm|>", "sot_prev": "<|startofprev|>",
        "no_timestamps": "<|notimestamps|>",
    }  # fmt: skip
    if not set(names.values()) <= set(added):
        raise WeightsError(f"{found} is not a Whisper tokenizer: it lacks the special tokens")
    first, last = added["<|startoftranscript|>"] + 1, added["<|translate|>"]
    languages = {
        content[2:-2]: number for content, number in added.items() if first <= number < last
    }
    special = special_tokens(config["n_vocab"], languages=last - first)
    if any(special[key] != added[name] for key, name in names.items()):
        raise WeightsError(
            f"{found} numbers its special tokens otherwise than a vocabulary of "
            f"{config['n_vocab']}; it belongs to another Whisper"
        )
    generation = {
        "multilingual": config["n_vocab"] > ENGLISH_VOCAB,
        "special": special,
        "languages": languages,
        "suppress_tokens": list(suppress or ()),
        "begin_suppress_tokens": list(begin or ()),
    }
    notes = () if suppress else ("the source names no suppressed tokens",)
    return {"tokenizer.json": found, "generation.json": json.dumps(generation)}, notes
