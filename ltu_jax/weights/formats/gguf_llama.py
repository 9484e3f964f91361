"""GGUF files of the LLaMA family, through the `gguf` library: numbers, config and tokenizer."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.weights import facts
from ltu_jax.weights.files import gguf_header
from ltu_jax.weights.files.config_json import positive, whole
from ltu_jax.weights.files.safetensors_file import file_tensor
from ltu_jax.weights.formats import gguf_tokenizer
from ltu_jax.weights.formats.hf_llama import ATTENTION, MLP, projection
from ltu_jax.weights.name_tables import LINEAR, SAME, Import, NameRule, interleaved, rule
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


def rules(*, heads: int, kv_heads: int, permuted: bool) -> tuple[NameRule, ...]:
    """Return the GGUF table; `permuted` for the llama architecture's interleaved q and k rows."""
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


def from_gguf(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    max_positions: int | None = None,
) -> Import:
    """Open a GGUF file; quantised tensors are dequantised to float32 when read.

    Args:
        path: the file.
        tokenizer: folder with the model's own tokenizer files; None makes them of the metadata.
        max_positions: use the model up to here only; None takes its context length.

    Raises:
        WeightsError: not GGUF, truncated, another architecture, a setting that is not computed or
            that the tensors contradict, a tokenizer that cannot be made of the metadata.
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
    if tokenizer is None:
        files, notes = gguf_tokenizer.files(fields, path=path)
    else:
        files, notes = gguf_tokenizer.given(Path(tokenizer), fields, path=path), ()
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
    """Return positions and end tokens, see `facts`; a GGUF has no files of its source."""
    key = f"{family}.context_length"
    count = whole(fields, key, subject=str(path)) if key in fields else None
    count = facts.limited(count, max_positions, subject=str(path))
    window = fields.get(f"{family}.attention.sliding_window")
    facts.check_window(window, count, subject=str(path), key=f"{family}.attention.sliding_window")
    names = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    ends = [
        end
        for name in names
        if name in fields
        for end in facts.end_tokens([fields[name]], rows=rows, subject=f"{path}: {name}")
    ]
    return ({} if count is None else {"max_position_embeddings": count}) | (
        {"end_tokens": list(dict.fromkeys(ends))} if ends else {}
    )


def _tensor(tensor: Any, path: Path) -> Tensor:
    """Return a tensor by its place in the file; the library's own view would map all of it."""
    from gguf.quants import dequantize

    shape = tuple(int(size) for size in reversed(tensor.shape))
    stored = file_tensor(
        path, start=int(tensor.data_offset), shape=tensor.data.shape, dtype=tensor.data.dtype
    )
    if tensor.data.dtype != np.uint8:  # stored as it is; integers are refused with their name
        return dataclasses.replace(stored, shape=shape)

    def read() -> np.ndarray:
        try:
            return dequantize(stored.read(), tensor.tensor_type)
        except NotImplementedError:
            raise WeightsError(
                f"{path}: {tensor.name} is of type {tensor.tensor_type.name}, which the gguf "
                "library cannot dequantise; take a file of another quantisation"
            ) from None

    return Tensor(shape=shape, dtype=np.dtype(np.float32), read=read)


def _config(
    fields: Mapping[str, Any], tensors: Tensors, *, family: str, path: Path
) -> dict[str, Any]:
    def size(key: str, default: int | None = None) -> int:
        return whole(fields, f"{family}.{key}", subject=str(path), default=default)

    heads, hidden = size("attention.head_count"), size("embedding_length")
    head_dim = size("attention.key_length", max(1, hidden // heads))
    rotated = size("rope.dimension_count", head_dim)
    layers = size("block_count")
    if layers > len(tensors):
        raise damaged(path, f"it claims {layers} layers and has {len(tensors)} tensors")
    eps = positive(fields, f"{family}.attention.layer_norm_rms_epsilon", subject=str(path))
    theta = positive(fields, f"{family}.rope.freq_base", subject=str(path), default=10000.0)
    if rotated != head_dim:
        raise WeightsError(f"{path}: RoPE on {rotated} of {head_dim} dims is not implemented")
    _refuse_settings(fields, family=family, head_dim=head_dim, path=path)
    rows = tensors["token_embd.weight"].shape[0]
    if size("vocab_size", rows) != rows:
        raise WeightsError(
            f"{path}: {family}.vocab_size is {size('vocab_size')}, token_embd.weight has {rows} "
            "rows"
        )
    return {
        "vocab_size": rows,
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


# Settings of llama.cpp's architectures that change the numbers, and the values that change nothing.
_NEUTRAL = {
    "expert_count": (0,), "expert_used_count": (0,), "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,), "attention.scale": (0.0,), "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0), "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,), "use_parallel_residual": (False,),
    "attention.causal": (True,), "rope.scaling.type": ("none",),
}  # fmt: skip


def _refuse_settings(fields: Mapping[str, Any], *, family: str, head_dim: int, path: Path) -> None:
    """Name the first setting that this model does not compute.

    Raises:
        WeightsError: there is one.
    """
    neutral: dict[str, tuple] = _NEUTRAL | {"attention.value_length": (head_dim,)}
    if f"{family}.rope.scaling.type" not in fields:
        # llama.cpp scales by a factor whose kind is not said as if it were linear
        neutral |= {"rope.scaling.factor": (0.0, 1.0), "rope.scale_linear": (0.0, 1.0)}
    for key, values in neutral.items():
        value = fields.get(f"{family}.{key}", values[0])
        if value not in values:
            raise WeightsError(
                f"{path}: {family}.{key} is {str(value)[:80]}, which is not implemented; "
                f"{values[-1]} is"
            )


def _short(value: float) -> float:
    """Return the decimal that was meant: GGUF keeps 1e-5 as float32 9.999999747e-06."""
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
