"""LLaMA family (LLaMA-1/2/3, Vicuna, SmolLM2, Mistral, Qwen2): Hugging Face names and configs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.files import read_json
from ltu_jax.weights import io, store
from ltu_jax.weights.io import Tensor, Tensors, WeightsError
from ltu_jax.weights.rules import SAME, Import, Rule, architecture, dense, likely_cause, rule

MODEL_TYPES = ("llama", "mistral", "qwen2")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# What transformers' LlamaConfig, MistralConfig and Qwen2Config take when a config.json of theirs
# has no rope_theta; the LLaMA-1 and Vicuna directories do not write it.
_HF_DEFAULT_THETA = 10000.0
_INV_FREQ = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq")
# relative error that storing an inverse frequency in a dtype makes
_INV_FREQ_TOLERANCE = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def projection(name: str) -> str:
    """`q_proj` -> `self_attn.q_proj`, `up_proj` -> `mlp.up_proj`."""
    return f"{'self_attn' if name in ATTENTION else 'mlp'}.{name}"


def rules(*, root: str = "") -> tuple[Rule, ...]:
    """The Hugging Face table; `root` is put before every foreign name."""
    foreign, ours = f"{root}model.layers.{{layer}}", "llama.layers"
    table = [rule(f"{root}model.embed_tokens.weight", "llama.embed_tokens.embedding", SAME)]
    for name in (*ATTENTION, *MLP):
        table += dense(
            f"{foreign}.{projection(name)}",
            f"{ours}.{projection(name)}",
            bias=name in ("q_proj", "k_proj", "v_proj"),
        )
    for name in ("input_layernorm", "post_attention_layernorm"):
        table.append(rule(f"{foreign}.{name}.weight", f"{ours}.{name}.scale", SAME))
    table.append(rule(f"{root}model.norm.weight", "llama.norm.scale", SAME))
    table += dense(f"{root}lm_head", "llama.lm_head", bias=False)
    return tuple(table)


HF_RULES = rules()


def inverse_frequencies(*, head_dim: int, theta: float) -> np.ndarray:
    """float32 [H/2] of the official persistent buffer: 1 / theta ** (2i / H), in float32 steps."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # the power in double and one rounding is what PyTorch's float32 power gives
    power = (np.float64(theta) ** exponent.astype(np.float64)).astype(np.float32)
    return np.float32(1.0) / power


def check_inv_freq(
    tensors: Tensors, *, head_dim: int, theta: float, what: str
) -> dict[str, Tensor]:
    """Verify every `rotary_emb.inv_freq` buffer against theta and leave them out.

    Raises:
        WeightsError: a buffer that another theta or head size has made.
    """
    rest = dict(tensors)
    wanted = inverse_frequencies(head_dim=head_dim, theta=theta).astype(np.float64)
    for name in [name for name in tensors if _INV_FREQ.fullmatch(name)]:
        found = rest.pop(name).read()
        tolerance = _INV_FREQ_TOLERANCE[found.dtype.name]
        values = found.astype(np.float64)
        if values.shape != wanted.shape:
            raise WeightsError(
                f"{what}: {name} has {found.size} values, expected {wanted.size} "
                f"(head size {head_dim}); check num_attention_heads in --llama"
            )
        if not np.allclose(values, wanted, rtol=tolerance, atol=1e-7 if tolerance > 1e-5 else 0):
            base = float(values[-1] ** (-head_dim / (head_dim - 2))) if head_dim > 2 else 0.0
            raise WeightsError(
                f"{what}: {name} belongs to rope_theta {base:.6g}, the config says {theta:.6g}"
            )
    return rest


def rope(settings: Mapping[str, Any], *, what: str) -> tuple[float, dict[str, Any] | None]:
    """theta and llama3 scaling of a Hugging Face config (both spellings: transformers 4 and 5).

    Raises:
        WeightsError: no theta, or a scaling other than none and llama3.
    """
    parameters = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    theta = settings.get("rope_theta", parameters.get("rope_theta"))
    if theta is None:
        if settings.get("model_type") not in MODEL_TYPES:
            raise WeightsError(f"{what} has no rope_theta; add it (10000 for LLaMA-1 and Vicuna)")
        theta = _HF_DEFAULT_THETA
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise WeightsError(f"{what}: RoPE scaling {kind!r} is not implemented; llama3 is")
    names = (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    )  # fmt: skip
    absent = [name for name in names if name not in parameters]
    if absent:
        raise WeightsError(f"{what}: RoPE scaling llama3 lacks {', '.join(absent)}")
    return float(theta), {name: parameters[name] for name in names}


def config_from_hf(
    settings: Mapping[str, Any], tensors: Tensors, *, what: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """LlamaConfig as a dict: sizes from the shapes, the rest from a config.json.

    Args:
        settings: the config; heads, eps and theta must be in it, sizes may be.
        tensors: weights under Hugging Face names; buffers may still be among them.
        what: how errors call the file.

    Returns:
        (config dict, notes for the summary).

    Raises:
        WeightsError: another model_type or activation, a key missing, a size that contradicts
            the shapes.
    """
    model_type = settings.get("model_type", "llama")
    if model_type not in MODEL_TYPES:
        raise WeightsError(
            f"{what}: weights of another architecture: found model_type {model_type}, expected "
            f"{', '.join(MODEL_TYPES)}"
        )
    for key, value in (("hidden_act", "silu"), ("mlp_bias", False)):
        if settings.get(key, value) != value:
            raise WeightsError(f"{what}: {key} {settings[key]!r} is not implemented; {value!r} is")
    sizes = _sizes(tensors, what=what)
    _compare_sizes(settings, sizes, what=what)
    for key in ("num_attention_heads", "rms_norm_eps"):
        if settings.get(key) is None:
            raise WeightsError(f"{what}: the config has no {key}, which the shapes do not tell")
    heads = settings["num_attention_heads"]
    queries = tensors["model.layers.0.self_attn.q_proj.weight"].shape[0]
    keys = tensors["model.layers.0.self_attn.k_proj.weight"].shape[0]
    head_dim = settings.get("head_dim") or queries // heads
    if head_dim * heads != queries or keys % head_dim or head_dim % 2:
        raise WeightsError(
            f"{what}: {heads} heads of {head_dim} do not fit q_proj with {queries} and k_proj "
            f"with {keys} outputs; correct num_attention_heads or head_dim"
        )
    kv_heads = settings.get("num_key_value_heads") or keys // head_dim
    if kv_heads * head_dim != keys:
        raise WeightsError(
            f"{what}: num_key_value_heads {kv_heads} of {head_dim} does not fit k_proj with "
            f"{keys} outputs; expected {keys // head_dim}"
        )
    theta, scaling = rope(settings, what=what)
    notes = ()
    if settings.get("sliding_window") and settings.get("use_sliding_window", True):
        notes = (
            f"sliding window {settings['sliding_window']} is not applied: results are the same "
            "up to that many tokens",
        )
    return sizes | {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": float(settings["rms_norm_eps"]),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": _tied(settings, tensors, what=what),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in tensors,
    }, notes


def _sizes(tensors: Tensors, *, what: str) -> dict[str, int]:
    needed = (
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
    )
    absent = [name for name in needed if name not in tensors]
    if absent:
        found = architecture(tensors)
        kind = (
            f"weights of another architecture: found {found}"
            if found not in (None, "llama")
            else "not complete LLaMA weights"
        )
        raise WeightsError(f"{what}: {kind}; {', '.join(absent)} missing")
    vocabulary, hidden = tensors[needed[0]].shape
    depth = 1 + max(
        int(match.group(1))
        for match in (re.match(r"model\.layers\.(\d+)\.", name) for name in tensors)
        if match
    )
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": tensors[needed[3]].shape[0],
        "num_hidden_layers": depth,
    }


def _compare_sizes(settings: Mapping[str, Any], sizes: Mapping[str, int], *, what: str) -> None:
    wrong = [key for key in sizes if settings.get(key) not in (None, sizes[key])]
    if wrong:
        key = wrong[0]
        name = "model.embed_tokens.weight"
        cause = likely_cause(
            wanted={name: (settings.get("vocab_size") or sizes["vocab_size"],
                           settings.get("hidden_size") or sizes["hidden_size"])},
            found={name: (sizes["vocab_size"], sizes["hidden_size"])},
        )  # fmt: skip
        raise WeightsError(
            f"{what}: {key} is {sizes[key]} in the weights and {settings[key]} in the config"
            + (f"; {cause}" if cause else "")
        )


def _tied(settings: Mapping[str, Any], tensors: Tensors, *, what: str) -> bool:
    """Whether the output is the embedding: as the config says, and as the numbers must agree."""
    output = tensors.get("lm_head.weight")
    if not settings.get("tie_word_embeddings", False):
        return False  # a missing lm_head.weight is then reported with the other names
    if output is not None and not np.array_equal(
        output.read(), tensors["model.embed_tokens.weight"].read()
    ):
        raise WeightsError(
            f"{what}: tie_word_embeddings is set but lm_head.weight differs from the embedding"
        )
    return True


def without_tied_output(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors without the copy of the embedding that tied checkpoints may carry."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not (config["tie_word_embeddings"] and name.endswith("lm_head.weight"))
    }


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """The tokenizer files that lie in a directory."""
    return {n: folder / n for n in store.TOKENIZER_FILES if (folder / n).is_file()}


def from_hf(path: str | Path) -> Import:
    """Open a Hugging Face LLaMA-family directory (safetensors or .bin, sharded or not).

    Raises:
        WeightsError: another architecture, missing files, sizes that contradict config.json.
    """
    path = Path(path)
    if not path.is_dir():
        raise WeightsError(f"{path} is not a Hugging Face directory (config.json and weights)")
    settings = read_json(path / "config.json")
    if settings.get("model_type") not in MODEL_TYPES:
        raise WeightsError(
            f"{path}: weights of another architecture: found model_type "
            f"{settings.get('model_type')}, expected {', '.join(MODEL_TYPES)}"
        )
    tensors = io.read_checkpoint(path)
    config, notes = config_from_hf(settings, tensors, what=str(path))
    tensors = check_inv_freq(
        tensors, head_dim=config["head_dim"], theta=config["rope_theta"], what=str(path)
    )
    files = tokenizer_files(path)
    if not files:
        notes += ("no tokenizer files in the directory",)
    return Import(
        config=config,
        rules=HF_RULES,
        tensors=without_tied_output(tensors, config),
        files=files,
        source={
            "format": "hf-llama",
            "model_type": settings["model_type"],
            "name": settings.get("_name_or_path") or path.name,
        },
        notes=notes,
    )


def hf_config(
    config: Mapping[str, Any], *, dtype: str, tokens: Mapping[str, int | None]
) -> dict[str, Any]:
    """config.json that `AutoModelForCausalLM` (transformers 4 and 5) reads.

    q/k/v biases without an output bias are Qwen2's; everything else is written as LLaMA.
    """
    qwen = config["attention_bias"]
    scaling = config["rope_scaling"]
    keys = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta",
        "tie_word_embeddings",
    )  # fmt: skip
    return (
        {key: config[key] for key in keys}
        | {
            "architectures": ["Qwen2ForCausalLM" if qwen else "LlamaForCausalLM"],
            "model_type": "qwen2" if qwen else "llama",
            "hidden_act": "silu",
            "attention_bias": qwen,
            "mlp_bias": False,
            "max_position_embeddings": 2048,
            "rope_scaling": None if scaling is None else {"rope_type": "llama3", **scaling},
            "torch_dtype": dtype,
            "use_cache": True,
        }
        | {f"{name}_token_id": value for name, value in tokens.items() if value is not None}
    )
