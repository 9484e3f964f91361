"""GGUF files of the LLaMA family, through the `gguf` library: numbers, config and tokenizer."""

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.weights import facts, gguf_header
from ltu_jax.weights.llama import ATTENTION, MLP, projection
from ltu_jax.weights.rules import LINEAR, SAME, Import, Rule, interleaved, rule
from ltu_jax.weights.safetensors_file import file_tensor
from ltu_jax.weights.settings import positive, whole
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, damaged

ARCHITECTURES = ("llama", "qwen2")
_GGUF_NAMES = dict(zip(
    (*ATTENTION, *MLP),
    ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
    strict=True,
))  # fmt: skip
# (factor, low, high, original length) of the published LLaMA-3 models; GGUF stores the resulting
# factor of each frequency, not these numbers
_LLAMA3_SCALINGS = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192))


def rules(*, heads: int, kv_heads: int, permuted: bool) -> tuple[Rule, ...]:
    """The GGUF table; `permuted` for the llama architecture, whose q and k rows are interleaved."""
    table = [rule("token_embd.weight", "llama.embed_tokens.embedding", SAME)]
    for name, foreign in _GGUF_NAMES.items():
        turned = {"q_proj": heads, "k_proj": kv_heads}.get(name) if permuted else None
        weight = LINEAR if turned is None else interleaved(turned)
        source, target = f"blk.{{layer}}.{foreign}", f"llama.layers.{projection(name)}"
        table.append(rule(f"{source}.weight", f"{target}.kernel", weight))
        if name in ("q_proj", "k_proj", "v_proj"):
            bias = SAME if turned is None else weight
            table.append(rule(f"{source}.bias", f"{target}.bias", bias))
    for foreign, ours in (
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
    ):
        table.append(rule(f"blk.{{layer}}.{foreign}.weight", f"llama.layers.{ours}.scale", SAME))
    table.append(rule("output_norm.weight", "llama.norm.scale", SAME))
    table.append(rule("output.weight", "llama.lm_head.kernel", LINEAR))
    return tuple(table)


def from_gguf(path: str | Path, *, max_positions: int | None = None) -> Import:
    """Open a GGUF file; quantised tensors are dequantised to float32 when read.

    Args:
        path: the file.
        max_positions: use the model up to here only; None takes its context length.

    Raises:
        WeightsError: not GGUF, truncated, another architecture, an unknown RoPE scaling.
    """
    import gguf

    path = Path(path)
    gguf_header.read_header(path)  # the library believes whatever the file says about itself
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, OverflowError) as error:
        raise damaged(path, f"the gguf library cannot read it ({error})") from None
    fields = {name: field.contents() for name, field in reader.fields.items()}
    family = fields.get("general.architecture")
    if family not in ARCHITECTURES:
        raise WeightsError(
            f"{path}: weights of another architecture: found {family}, expected "
            f"{', '.join(ARCHITECTURES)}"
        )
    tensors = {tensor.name: _tensor(tensor, path) for tensor in reader.tensors}
    if "token_embd.weight" not in tensors:
        raise WeightsError(f"{path}: token_embd.weight missing; this is a part of a split model")
    config = _config(fields, tensors, family=family, path=path)
    factors = tensors.pop("rope_freqs.weight", None)
    if factors is not None:
        config["rope_scaling"] = _rope_scaling(factors.read(), config, path=path)
    files, notes = tokenizer_files(fields, path=path)
    return Import(
        config=config,
        rules=rules(
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            permuted=family == "llama",
        ),
        tensors=tensors,
        files=files,
        source={
            "format": "gguf",
            "name": fields.get("general.name", path.name),
            "file": path.name,
            "license": fields.get("general.license", "not stated"),
            "tensor_types": sorted({tensor.tensor_type.name for tensor in reader.tensors}),
        },
        notes=notes,
        facts=_facts(
            fields,
            family=family,
            rows=config["vocab_size"],
            path=path,
            max_positions=max_positions,
        ),
    )


def _facts(
    fields: Mapping[str, Any], *, family: str, rows: int, path: Path, max_positions: int | None
) -> dict[str, Any]:
    """Positions and end tokens, see `facts`; a GGUF has no files of its source."""
    key = f"{family}.context_length"
    count = whole(fields, key, what=str(path)) if key in fields else None
    count = facts.limited(count, max_positions, what=str(path))
    names = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    ends = [
        end
        for name in names
        if name in fields
        for end in facts.end_tokens([fields[name]], rows=rows, what=f"{path}: {name}")
    ]
    return ({} if count is None else {"max_position_embeddings": count}) | (
        {"end_tokens": list(dict.fromkeys(ends))} if ends else {}
    )


def _tensor(tensor: Any, path: Path) -> Tensor:
    """A tensor by its place in the file; the library's own view would map the whole file."""
    from gguf.quants import dequantize

    shape = tuple(int(size) for size in reversed(tensor.shape))
    stored = file_tensor(
        path, start=int(tensor.data_offset), shape=tensor.data.shape, dtype=tensor.data.dtype
    )
    if tensor.data.dtype in (np.float32, np.float16):
        return dataclasses.replace(stored, shape=shape)
    return Tensor(
        shape=shape,
        dtype=np.dtype(np.float32),
        read=lambda: dequantize(stored.read(), tensor.tensor_type),
    )


def _config(
    fields: Mapping[str, Any], tensors: Tensors, *, family: str, path: Path
) -> dict[str, Any]:
    def size(key: str, default: int | None = None) -> int:
        return whole(fields, f"{family}.{key}", what=str(path), default=default)

    heads, hidden = size("attention.head_count"), size("embedding_length")
    head_dim = size("attention.key_length", max(1, hidden // heads))
    rotated = size("rope.dimension_count", head_dim)
    layers = size("block_count")
    if layers > len(tensors):
        raise damaged(path, f"it claims {layers} layers and has {len(tensors)} tensors")
    eps = positive(fields, f"{family}.attention.layer_norm_rms_epsilon", what=str(path))
    theta = positive(fields, f"{family}.rope.freq_base", what=str(path), default=10000.0)
    if rotated != head_dim:
        raise WeightsError(f"{path}: RoPE on {rotated} of {head_dim} dims is not implemented")
    scaling = fields.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none":
        raise WeightsError(f"{path}: RoPE scaling {scaling!r} is not implemented")
    return {
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": _short(eps),
        "rope_theta": _short(theta),
        "rope_scaling": None,
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
    }


def _short(value: float) -> float:
    """The decimal that was meant: GGUF keeps 1e-5 as float32 9.999999747e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(
    factors: np.ndarray, config: Mapping[str, Any], *, path: Path
) -> dict[str, float | int]:
    """Find the llama3 scaling whose per-frequency factors the file stores."""
    head_dim, theta = config["head_dim"], config["rope_theta"]
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    for factor, low, high, length in _LLAMA3_SCALINGS:
        smooth = np.clip((length / wavelength - low) / (high - low), 0, 1)
        if np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4):
            return {
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": length,
            }
    raise WeightsError(
        f"{path}: rope_freqs.weight is of no published LLaMA-3 model; import the Hugging Face "
        "directory instead"
    )


_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _pre_tokenizer(name: str, *, path: Path) -> Any:
    """How the named family cuts text before BPE (as the families' own tokenizer.json files do)."""
    from tokenizers import Regex, pre_tokenizers

    level = pre_tokenizers.ByteLevel
    if name in ("gpt-2", "default"):
        return level(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
        )
    digits = {"llama-bpe": "1,3", "qwen2": "1"}
    if name not in digits:
        raise WeightsError(
            f"{path}: pre-tokenizer {name!r} is not known; put the model's own tokenizer.json "
            "into the weights directory"
        )
    split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT % digits[name]), behavior="isolated")
    return pre_tokenizers.Sequence([split, level(add_prefix_space=False, use_regex=False)])


def tokenizer_files(
    fields: Mapping[str, Any], *, path: Path
) -> tuple[dict[str, str | bytes], tuple[str, ...]]:
    """Rebuild the tokenizer from the metadata: tokenizer.json or a sentencepiece tokenizer.model.

    Returns:
        ({file name: content}, notes).

    Raises:
        WeightsError: a tokenizer model or pre-tokenizer that is not known.
    """
    model = fields.get("tokenizer.ggml.model")
    if model is None:
        return {}, ("the file has no tokenizer",)
    _check_tokenizer(fields, path=path)
    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (
            ("bos_token", "bos"), ("eos_token", "eos"),
            ("unk_token", "unknown"), ("pad_token", "padding"),
        )
        if f"tokenizer.ggml.{key}_token_id" in fields
    }  # fmt: skip
    named: Mapping[str, Any] = special
    if model == "llama":
        # A plain string here would mean, as in old LLaMA files, that the spaces around a special
        # token written in a text are stripped; Vicuna's files say with these flags that they stay.
        flags = {"__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": True}
        named = {name: {"content": token, **flags} for name, token in special.items()}
    settings = named | {
        "tokenizer_class": "PreTrainedTokenizerFast" if model == "gpt2" else "LlamaTokenizer",
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", model == "llama")),
        "add_eos_token": bool(fields.get("tokenizer.ggml.add_eos_token", False)),
        "clean_up_tokenization_spaces": False,
    }
    if "tokenizer.chat_template" in fields:
        settings["chat_template"] = fields["tokenizer.chat_template"]
    files: dict[str, str | bytes] = {
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False)
    }
    if model == "gpt2":
        files["tokenizer.json"] = _byte_level(fields, path=path)
    elif model == "llama":
        files["tokenizer.model"] = _sentencepiece(fields, special)
    else:
        raise WeightsError(f"{path}: tokenizer model {model!r} is not known (gpt2, llama are)")
    return files, ()


def _check_tokenizer(fields: Mapping[str, Any], *, path: Path) -> None:
    """The lists that every tokenizer here is built from: there, of one length, of one kind.

    Raises:
        WeightsError: they are not.
    """
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise damaged(path, "its tokenizer.ggml.tokens is no list of texts")
    lists = {"token_type": int} | (
        {"scores": (int, float)} if fields["tokenizer.ggml.model"] == "llama" else {}
    )
    for name, kind in lists.items():
        found = fields.get(f"tokenizer.ggml.{name}")
        if (
            not isinstance(found, list)
            or len(found) != len(tokens)
            or not all(isinstance(value, kind) for value in found)
        ):
            raise damaged(path, f"its tokenizer.ggml.{name} does not fit its tokens")
    for key in ("bos", "eos", "unknown", "padding"):
        found = fields.get(f"tokenizer.ggml.{key}_token_id", 0)
        if type(found) is not int or not 0 <= found < len(tokens):
            raise damaged(path, f"its tokenizer.ggml.{key}_token_id is {found}, of {len(tokens)}")


def _byte_level(fields: Mapping[str, Any], *, path: Path) -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokens = fields["tokenizer.ggml.tokens"]
    kinds = fields["tokenizer.ggml.token_type"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise WeightsError(f"{path}: its vocabulary has a token twice")
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(fields.get("tokenizer.ggml.pre", "default"), path=path)
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            added = AddedToken(token, special=kind == _CONTROL, normalized=False)
            tokenizer.add_special_tokens([added]) if kind == _CONTROL else tokenizer.add_tokens(
                [added]
            )
    return tokenizer.to_str()


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """One protocol-buffer field. By hand, because the generated module that sentencepiece ships
    refuses any protobuf runtime older than itself."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sentencepiece(fields: Mapping[str, Any], special: Mapping[str, str]) -> bytes:
    """A sentencepiece BPE model with the pieces, scores and types that llama.cpp kept.

    Field numbers are those of sentencepiece_model.proto.
    """
    tokens = fields["tokenizer.ggml.tokens"]
    kinds = [int(kind) for kind in fields["tokenizer.ggml.token_type"]]
    scores = [float(score) for score in fields["tokenizer.ggml.scores"]]
    pieces = b"".join(
        _field(1, _field(1, token) + _field(2, score) + _field(3, kind))
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    bpe, byte = 2, 6
    trainer = _field(3, bpe) + _field(4, len(tokens)) + _field(35, int(byte in kinds))
    for name, number in (("unk_token", 40), ("bos_token", 41), ("eos_token", 42)):
        if name in special:
            trainer += _field(number, tokens.index(special[name]))
            trainer += _field(number + 5, special[name])
    prefix = int(bool(fields.get("tokenizer.ggml.add_space_prefix", True)))
    normalizer = _field(1, "identity") + _field(3, prefix) + _field(4, 0) + _field(5, 1)
    return pieces + _field(2, trainer) + _field(3, normalizer)
