"""Whisper in Hugging Face directories: the table, in and out, and sizes from shapes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.files import read_json, write_json
from ltu_jax.weights.diagnosis import Shapes, architecture
from ltu_jax.weights.facts import GENERATION_FILE
from ltu_jax.weights.files import shards
from ltu_jax.weights.files.config_json import read_settings, refuse_quantised
from ltu_jax.weights.formats import name_prefixes
from ltu_jax.weights.formats.whisper_tokens import (
    compare_generation,
    published_tokens,
    tokenizer_files,
)
from ltu_jax.weights.name_tables import (
    SAME,
    Import,
    NameRule,
    convolutions,
    dense,
    export,
    norm,
    rule,
)
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

# what our Whisper computes; a config.json that says otherwise is another model
_SETTINGS = {"activation_function": "gelu", "scale_embedding": False}
_END = "<|endoftext|>"
ANCHORS = tuple(
    f"{root}{name}"
    for root in ("model.", "")
    for name in ("encoder.conv1.weight", "decoder.embed_tokens.weight")
)


def _hf_rules() -> tuple[NameRule, ...]:
    def attention(foreign: str, ours: str) -> tuple[NameRule, ...]:
        return (
            *dense(f"{foreign}.k_proj", f"{ours}.key", bias=False),
            *dense(f"{foreign}.v_proj", f"{ours}.value"),
            *dense(f"{foreign}.q_proj", f"{ours}.query"),
            *dense(f"{foreign}.out_proj", f"{ours}.out"),
        )

    def side(
        name: str, embedding: Sequence[NameRule], cross: bool, final: str
    ) -> tuple[NameRule, ...]:
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

    convs = convolutions("encoder.{}.", "encoder")
    embedding = rule("decoder.embed_tokens.weight", "decoder.embedding", SAME)
    return side("encoder", convs, False, "ln_post") + side("decoder", [embedding], True, "ln")


HF_RULES = _hf_rules()


def from_hf(path: str | Path, *, weights_file: str | None = None, numbers: bool = True) -> Import:
    """Open a Hugging Face Whisper directory (safetensors or .bin, with config.json).

    Args:
        path: the directory.
        weights_file: which weights to read where there are several, see `checkpoint_files`.
        numbers: whether the output may be read and compared with the embedding.

    Raises:
        WeightsError: another model_type, an output that is not tied, missing files, settings that
            contradict the tensors or each other.
    """
    path = Path(path)
    settings = read_settings(path / "config.json")
    if settings.get("model_type") != "whisper":
        raise WeightsError(
            f"{path}: weights of another architecture: found model_type "
            f"{settings.get('model_type')}, expected whisper"
        )
    for name, wanted in _SETTINGS.items():
        if settings.get(name, wanted) != wanted:
            raise WeightsError(
                f"{path}/config.json: {name} is {settings[name]!r}; Whisper has {wanted!r}"
            )
    heads = tuple(settings.get(f"{side}_attention_heads") for side in ("encoder", "decoder"))
    if not all(type(count) is int and count > 0 for count in heads):
        raise WeightsError(
            f"{path}/config.json: encoder_attention_heads and decoder_attention_heads are "
            f"{heads[0]!r} and {heads[1]!r}; the shapes do not tell them, so it must"
        )
    refuse_quantised(settings, subject=str(path))
    read, wrapped = name_prefixes.unwrapped(
        shards.read_checkpoint(path, chosen=weights_file), anchors=ANCHORS, subject=str(path)
    )
    tensors = {name.removeprefix("model."): tensor for name, tensor in read.items()}
    if len(tensors) != len(read):
        twice = next(name for name in tensors if name in read and f"model.{name}" in read)
        raise WeightsError(f"{path}: it has both {twice} and model.{twice}")
    embedding = tensors.get("decoder.embed_tokens.weight")
    output = tensors.pop("proj_out.weight", None)
    if numbers and output is not None and embedding is not None and not _equal(output, embedding):
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
        heads=heads,
        subject=str(path),
    )  # fmt: skip
    _compare_sizes(settings, config, tensors, subject=f"{path}/config.json")
    file = path / GENERATION_FILE
    generation = read_settings(file) if file.is_file() else {}
    stated = settings | generation
    files, notes = tokenizer_files(
        [path], config,
        suppress=stated.get("suppress_tokens"), begin=stated.get("begin_suppress_tokens"),
    )  # fmt: skip
    if files:
        compare_generation(generation, json.loads(files["generation.json"]), subject=file)
    return Import(
        config=config,
        rules=HF_RULES,
        tensors=tensors,
        files=files,
        source={"format": "hf-whisper", "name": settings.get("_name_or_path") or path.name},
        notes=wrapped + notes,
        facts={"source_config": settings}
        | ({"source_generation_config": generation} if generation else {}),
    )


# What config.json calls a size -> what our config calls it
_SIZES = (
    ("vocab_size", "n_vocab"), ("num_mel_bins", "n_mels"), ("d_model", "n_audio_state"),
    ("d_model", "n_text_state"), ("encoder_layers", "n_audio_layer"),
    ("decoder_layers", "n_text_layer"), ("max_source_positions", "n_audio_ctx"),
    ("max_target_positions", "n_text_ctx"),
)  # fmt: skip


def _compare_sizes(
    settings: Mapping[str, Any], config: Mapping[str, int], tensors: Tensors, *, subject: str
) -> None:
    """Require a config.json and its tensors to be of one model.

    Raises:
        WeightsError: they are not.
    """
    for key, name in _SIZES:
        if settings.get(key) not in (None, config[name]):
            raise WeightsError(
                f"{subject}: {key} is {str(settings[key])[:80]}, the tensors say {config[name]}; "
                "take config.json and weights of one model"
            )
    for side in ("encoder", "decoder"):
        kernel = tensors.get(f"{side}.layers.0.fc1.weight")
        said = settings.get(f"{side}_ffn_dim")
        if kernel is not None and said not in (None, kernel.shape[0]):
            raise WeightsError(
                f"{subject}: {side}_ffn_dim is {said}, the tensors say {kernel.shape[0]}; take "
                "config.json and weights of one model"
            )


def _equal(first: Tensor, other: Tensor) -> bool:
    return first.shape == other.shape and np.array_equal(first.read(), other.read())


def config_from_shapes(
    shapes: Shapes, *, names: Sequence[str], depth: Any, heads: tuple[int, int], subject: str
) -> dict[str, int]:
    """Return WhisperConfig as a dict, every size from the shapes.

    Args:
        shapes: foreign name -> shape.
        names: what the format calls the first convolution [D, M, 3], the encoder's positions
            [A, D], the token embedding [V, D], the decoder's positions [T, D].
        depth: "encoder" or "decoder" -> its number of layers.
        heads: of encoder and decoder, which no shape tells.
        subject: how an error calls the source.

    Raises:
        WeightsError: one of `names` is missing or has another number of axes.
    """
    absent = [name for name in names if name not in shapes]
    if absent:
        other = architecture(shapes)
        kind = f"weights of another architecture: found {other}" if other else "not a Whisper"
        raise WeightsError(f"{subject}: {kind}; {', '.join(absent)} missing")
    for name, axes in zip(names, (3, 2, 2, 2), strict=True):
        if len(shapes[name]) != axes:
            raise WeightsError(f"{subject}: {name} is {list(shapes[name])}, expected {axes} axes")
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


def to_hf(config: Mapping[str, int], params: Tensors) -> dict[str, Tensor]:
    """Return our parameters as `WhisperForConditionalGeneration.save_pretrained` names them.

    The output layer is not among them: it is the token embedding, which transformers ties.

    Raises:
        WeightsError: encoder and decoder differ in width, which the format has no word for.
    """
    if config["n_audio_state"] != config["n_text_state"]:
        raise WeightsError(
            f"an encoder of width {config['n_audio_state']} with a decoder of width "
            f"{config['n_text_state']}: a Hugging Face Whisper has one d_model for both"
        )
    return {f"model.{name}": tensor for name, tensor in export(HF_RULES, params).items()}


def write_hf_files(
    folder: Path,
    config: Mapping[str, int],
    *,
    dtype: str,
    tokenizer_dir: Path | None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write what transformers wants beside the weights: configs, feature extractor, tokenizer.

    Args:
        folder: where the weights are.
        config: WhisperConfig as a dict.
        dtype: what transformers is to load the weights in.
        tokenizer_dir: a weights directory with tokenizer.json and generation.json, if any.
        facts: with config.json and generation_config.json of the source, where known; what they
            say and we do not use (dropout, alignment heads, token ids) stays as it stands there.

    Returns:
        Notes for the summary.
    """
    generation = None
    if tokenizer_dir is not None and (tokenizer_dir / "generation.json").is_file():
        generation = read_json(tokenizer_dir / "generation.json")
    special = published_tokens(config["n_vocab"]) if generation is None else generation["special"]
    # null where unknown: the defaults of transformers are ids of the English vocabulary, and a
    # pad token outside the embedding is refused
    ids = {f"{name}_token_id": special.get("eot") for name in ("bos", "eos", "pad")}
    if special:
        ids["decoder_start_token_id"] = special["sot"]
    said, told = (facts or {}).get("source_config"), (facts or {}).get("source_generation_config")
    settings = _hf_config(config, dtype=dtype, source=said or {})
    write_json(folder / "config.json", ids | settings)
    write_json(folder / "preprocessor_config.json", _feature_extractor(config["n_mels"]))
    if told is not None:
        write_json(folder / GENERATION_FILE, told)
    if generation is None:
        return ("no tokenizer came with these weights: transformers can load, not transcribe",)
    if told is None:
        made = _generation_config(generation, max_length=config["n_text_ctx"])
        write_json(folder / GENERATION_FILE, made | ids)
    shutil.copyfile(tokenizer_dir / "tokenizer.json", folder / "tokenizer.json")
    added = read_json(folder / "tokenizer.json")["added_tokens"]
    controls = [entry["content"] for entry in added if entry["id"] < special["timestamp_begin"]]
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "add_prefix_space": False,
            "model_max_length": config["n_text_ctx"],
            # transformers takes the id after the last of these for <|0.00|>
            "additional_special_tokens": controls,
        }
        | {f"{name}_token": _END for name in ("bos", "eos", "pad", "unk")},
    )
    return ()


def _hf_config(
    config: Mapping[str, int], *, dtype: str, source: Mapping[str, Any]
) -> dict[str, Any]:
    unused = {
        "use_cache": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    said = {
        key: value
        for key, value in source.items()
        if key not in ("auto_map", "dtype", "torch_dtype")
        # an id without a row: transformers refuses such a pad token
        and not (key.endswith("_token_id") and type(value) is int and value >= config["n_vocab"])
    }
    return (
        unused
        | said
        | {
            "architectures": ["WhisperForConditionalGeneration"],
            "model_type": "whisper",
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
            ("dtype" if "dtype" in source else "torch_dtype"): dtype,
            "vocab_size": config["n_vocab"],
            "num_mel_bins": config["n_mels"],
            "d_model": config["n_audio_state"],
            "num_hidden_layers": config["n_audio_layer"],
            "encoder_layers": config["n_audio_layer"],
            "encoder_attention_heads": config["n_audio_head"],
            "encoder_ffn_dim": 4 * config["n_audio_state"],
            "decoder_layers": config["n_text_layer"],
            "decoder_attention_heads": config["n_text_head"],
            "decoder_ffn_dim": 4 * config["n_text_state"],
            "max_source_positions": config["n_audio_ctx"],
            "max_target_positions": config["n_text_ctx"],
            **_SETTINGS,
        }
    )


def _feature_extractor(n_mels: int) -> dict[str, Any]:
    """Return the settings of Whisper's log-mel: 25 ms windows every 10 ms, 30 s at 16 kHz."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": n_mels,
        "sampling_rate": 16_000,
        "n_fft": 400,
        "hop_length": 160,
        "chunk_length": 30,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _generation_config(generation: Mapping[str, Any], *, max_length: int) -> dict[str, Any]:
    """Return generation_config.json: what `generate` reads of the vocabulary's layout."""
    special, multilingual = generation["special"], generation["multilingual"]
    languages = {f"<|{code}|>": number for code, number in generation["languages"].items()}
    tasks = {name: special[name] for name in ("transcribe", "translate")}
    # without a task `generate` gives a multilingual model no task token at all, and it stammers
    prompt = {"lang_to_id": languages, "task_to_id": tasks, "task": "transcribe"}
    return {
        "is_multilingual": multilingual,
        "no_timestamps_token_id": special["no_timestamps"],
        "prev_sot_token_id": special["sot_prev"],
        "suppress_tokens": generation["suppress_tokens"],
        "begin_suppress_tokens": generation["begin_suppress_tokens"],
        "max_initial_timestamp_index": 50,
        "max_length": max_length,
        "return_timestamps": False,
        **(prompt if multilingual else {}),
    }
