"""LLaMA family (LLaMA-1/2/3, Vicuna, SmolLM2, Mistral, Qwen2): Hugging Face names and configs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.weights import facts, store
from ltu_jax.weights.diagnosis import architecture, likely_cause
from ltu_jax.weights.files import shards
from ltu_jax.weights.files.config_json import positive, read_settings, refuse_quantised, whole
from ltu_jax.weights.formats import hf_rope, name_prefixes
from ltu_jax.weights.name_tables import SAME, Import, NameRule, dense, rule
from ltu_jax.weights.tensors import BLOCK_BYTES, Tensor, Tensors, WeightsError

CLASSES = {  # of transformers, by model_type
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
MODEL_TYPES = tuple(CLASSES)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# What transformers' LlamaConfig, MistralConfig and Qwen2Config take when a config.json of theirs
# has no rope_theta; the LLaMA-1 and Vicuna directories do not write it.
_HF_DEFAULT_THETA = 10000.0


def projection(name: str) -> str:
    """Return the path of a projection: `self_attn.q_proj` for `q_proj`, `mlp.up_proj` ..."""
    return f"{'self_attn' if name in ATTENTION else 'mlp'}.{name}"


def rules(*, root: str = "") -> tuple[NameRule, ...]:
    """Return the Hugging Face table; `root` is put before every foreign name."""
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
ANCHORS = ("model.embed_tokens.weight",)  # every model has it, under whatever wrappers


def config_from_hf(
    settings: Mapping[str, Any],
    tensors: Tensors,
    *,
    subject: str,
    max_positions: int | None = None,
    numbers: bool = True,
) -> dict[str, Any]:
    """Return LlamaConfig as a dict: sizes from the shapes, the rest from a config.json.

    Args:
        settings: the config; heads, eps and theta must be in it, sizes may be.
        tensors: weights under Hugging Face names; buffers may still be among them.
        subject: how errors call the file.
        max_positions, numbers: as of `from_hf`.

    Raises:
        WeightsError: another model_type or activation, a key missing, a setting that is not
            computed, settings that contradict each other or the tensors.
    """
    model_type = settings.get("model_type", "llama")
    if model_type not in MODEL_TYPES:
        raise WeightsError(
            f"{subject}: weights of another architecture: found model_type {model_type}, expected "
            f"{', '.join(MODEL_TYPES)}"
        )
    refuse_quantised(settings, subject=subject)
    for key, value in (("hidden_act", "silu"), ("mlp_bias", False)):
        if settings.get(key) not in (value, None):
            raise WeightsError(
                f"{subject}: {key} {settings[key]!r} is not implemented; {value!r} is"
            )
    sizes = _sizes(tensors, subject=subject)
    _compare_sizes(settings, sizes, subject=subject)
    for key in ("num_attention_heads", "rms_norm_eps"):
        if settings.get(key) is None:
            raise WeightsError(f"{subject}: the config has no {key}, which the shapes do not tell")
    heads = whole(settings, "num_attention_heads", subject=subject)
    queries = tensors["model.layers.0.self_attn.q_proj.weight"].shape[0]
    keys = tensors["model.layers.0.self_attn.k_proj.weight"].shape[0]
    head_dim = whole(settings, "head_dim", subject=subject, default=max(1, queries // heads))
    if head_dim * heads != queries or keys % head_dim or head_dim % 2:
        raise WeightsError(
            f"{subject}: {heads} heads of {head_dim} do not fit q_proj with {queries} and k_proj "
            f"with {keys} outputs; correct num_attention_heads or head_dim"
        )
    kv_heads = whole(settings, "num_key_value_heads", subject=subject, default=keys // head_dim)
    if kv_heads * head_dim != keys:
        raise WeightsError(
            f"{subject}: num_key_value_heads {kv_heads} of {head_dim} does not fit k_proj with "
            f"{keys} outputs; expected {keys // head_dim}"
        )
    known = settings.get("model_type") in MODEL_TYPES
    theta, scaling = hf_rope.from_config(
        settings, subject=subject, default=_HF_DEFAULT_THETA if known else None
    )
    facts.check_window(
        facts.window(settings, layers=sizes["num_hidden_layers"], subject=subject),
        facts.limited(facts.positions(settings, subject=subject), max_positions, subject=subject),
        subject=subject,
    )
    return sizes | {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": positive(settings, "rms_norm_eps", subject=subject),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": _tied(settings, tensors, subject=subject, numbers=numbers),
        "attention_bias": _biased(settings, tensors, subject=subject),
    }


def _sizes(tensors: Tensors, *, subject: str) -> dict[str, int]:
    needed = (
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
    )
    absent = [name for name in needed if name not in tensors]
    if absent:
        other = architecture(tensors)
        kind = (
            f"weights of another architecture: found {other}"
            if other not in (None, "llama")
            else "not complete LLaMA weights"
        )
        raise WeightsError(f"{subject}: {kind}; {', '.join(absent)} missing")
    for name in needed:
        if len(tensors[name].shape) != 2 or 0 in tensors[name].shape:
            raise WeightsError(f"{subject}: {name} is {list(tensors[name].shape)}, not a matrix")
    vocabulary, hidden = tensors[needed[0]].shape
    numbers = (re.match(r"model\.layers\.(\d{1,9})\.", name) for name in tensors)
    depth = 1 + max(int(match.group(1)) for match in numbers if match)
    if depth > len(tensors):
        raise WeightsError(f"{subject}: a layer has number {depth - 1}, of {len(tensors)} tensors")
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": tensors[needed[3]].shape[0],
        "num_hidden_layers": depth,
    }


def _compare_sizes(settings: Mapping[str, Any], sizes: Mapping[str, int], *, subject: str) -> None:
    wrong = [
        key
        for key, size in sizes.items()
        if whole(settings, key, subject=subject, default=size) != size
    ]
    if wrong:
        key = wrong[0]
        name = "model.embed_tokens.weight"
        cause = likely_cause(
            wanted={name: (settings.get("vocab_size") or sizes["vocab_size"],
                           settings.get("hidden_size") or sizes["hidden_size"])},
            found={name: (sizes["vocab_size"], sizes["hidden_size"])},
        )  # fmt: skip
        raise WeightsError(
            f"{subject}: {key} is {sizes[key]} in the weights and {settings[key]} in the config"
            + (f"; {cause}" if cause else "")
        )


def _biased(settings: Mapping[str, Any], tensors: Tensors, *, subject: str) -> bool:
    """Return whether q, k and v have a bias, on which tensors and config must agree."""
    name = "model.layers.0.self_attn.{}.bias"
    query, output = (name.format(part) in tensors for part in ("q_proj", "o_proj"))
    kind, said = settings.get("model_type"), settings.get("attention_bias")
    if kind == "qwen2":
        said = True  # by architecture; transformers knows no such setting there
    elif kind is not None:
        said = bool(said)  # without a word there is none
    if output:
        raise WeightsError(
            f"{subject}: {name.format('o_proj')}: a bias of the output projection (attention_bias "
            f"{settings.get('attention_bias')!r}) is not implemented"
        )
    if said is not None and said != query:
        raise WeightsError(
            f"{subject}: attention_bias is {settings.get('attention_bias')!r} of a {kind}, and "
            f"{name.format('q_proj')} is {'there' if query else 'missing'}; correct the config or "
            "take the weights that belong to it"
        )
    return query


def _tied(settings: Mapping[str, Any], tensors: Tensors, *, subject: str, numbers: bool) -> bool:
    """Return whether the output is the embedding, on which numbers and config must agree."""
    output = tensors.get("lm_head.weight")
    tied = settings.get("tie_word_embeddings")
    if tied not in (None, True, False):
        raise WeightsError(f"{subject}: tie_word_embeddings is {tied!r}; expected true or false")
    if not tied:
        return False  # a missing lm_head.weight is then reported with the other names
    if numbers and output is not None and not _equal(output, tensors["model.embed_tokens.weight"]):
        raise WeightsError(
            f"{subject}: tie_word_embeddings is set but lm_head.weight differs from the embedding"
        )
    return True


def _equal(first: Tensor, other: Tensor) -> bool:
    """Compare the numbers of two tensors, read in blocks."""
    if (first.shape, first.dtype) != (other.shape, other.dtype):
        return False
    rows = first.shape[0]
    step = max(1, BLOCK_BYTES * rows // max(1, first.nbytes))
    return all(
        np.array_equal(first.between(row, stop), other.between(row, stop))
        for row, stop in ((row, min(row + step, rows)) for row in range(0, rows, step))
    )


def without_tied_output(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Leave out the copy of the embedding that tied checkpoints may carry."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not (config["tie_word_embeddings"] and name.endswith("lm_head.weight"))
    }


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Return the tokenizer files that lie in a directory.

    Raises:
        UserError: one that is called .json and is not.
    """
    files = {n: folder / n for n in store.TOKENIZER_FILES if (folder / n).is_file()}
    for name, file in files.items():
        if name.endswith(".json"):
            read_settings(file)
    return files


def from_hf(
    path: str | Path,
    *,
    max_positions: int | None = None,
    weights_file: str | None = None,
    numbers: bool = True,
) -> Import:
    """Open a Hugging Face LLaMA-family directory (safetensors or .bin, sharded or not).

    Args:
        path: the directory.
        max_positions: use the model up to here only; None takes max_position_embeddings.
        weights_file: which weights to read where there are several, see `checkpoint_files`.
        numbers: whether a tied output may be read and compared with the embedding.

    Raises:
        WeightsError: another architecture, missing files, sizes that contradict config.json.
    """
    path = Path(path)
    if not path.is_dir():
        raise WeightsError(f"{path} is not a Hugging Face directory (config.json and weights)")
    settings = read_settings(path / "config.json")
    if settings.get("model_type") not in MODEL_TYPES:
        raise WeightsError(
            f"{path}: weights of another architecture: found model_type "
            f"{settings.get('model_type')}, expected {', '.join(MODEL_TYPES)}"
        )
    refuse_quantised(settings, subject=str(path))
    tensors, notes = name_prefixes.unwrapped(
        shards.read_checkpoint(path, chosen=weights_file), anchors=ANCHORS, subject=str(path)
    )
    config = config_from_hf(
        settings, tensors, subject=str(path), max_positions=max_positions, numbers=numbers
    )
    tensors = hf_rope.check_inv_freq(
        tensors, head_dim=config["head_dim"], theta=config["rope_theta"], subject=str(path)
    )
    width = facts.window(settings, layers=config["num_hidden_layers"], subject=str(path))
    if width is not None:
        notes += (f"sliding window {width} is not applied: no text is longer than that",)
    files = tokenizer_files(path)
    if not files:
        notes += ("no tokenizer files in the directory",)
    name = settings.get("_name_or_path") or path.name
    if "delta" in f"{name} {path.name}".lower():
        notes += (f"{name} says delta: differences from LLaMA, useless until they are added to it",)
    return Import(
        config=config,
        rules=HF_RULES,
        tensors=without_tied_output(tensors, config),
        files=files,
        source={
            "format": "hf-llama",
            "model_type": settings["model_type"],
            "name": name,
        },
        notes=notes,
        facts=facts.of_hf(
            settings,
            folder=path,
            rows=config["vocab_size"],
            subject=str(path),
            max_positions=max_positions,
        ),
    )


def hf_config(
    config: Mapping[str, Any],
    *,
    dtype: str,
    tokens: Mapping[str, int | None],
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the config.json that `AutoModelForCausalLM` (transformers 4 and 5) reads.

    Args:
        config: LlamaConfig as a dict.
        dtype: what transformers is to load the weights in.
        tokens: {"bos", "eos", "pad": id}, for what `source` does not say.
        source: the config.json that the weights came with. What it says and we do not use stays
            as it stands there: positions, end tokens, sliding window, dropout and the rest.

    Without `source`, biases on q, k and v without an output bias are Qwen2's, and everything else
    is written as LLaMA; max_position_embeddings is then known to nobody and left out.
    """
    said = {key: value for key, value in (source or {}).items() if key not in _NOT_CARRIED}
    family, architecture, window = _family(config, said)
    written = said | {key: config[key] for key in _SIZES} | window | _rope(config, said)
    written |= {
        "architectures": [architecture],
        "model_type": family,
        "hidden_act": "silu",
        "attention_bias": config["attention_bias"],
        "mlp_bias": False,
        "use_cache": said.get("use_cache", True),
        ("dtype" if "dtype" in (source or {}) else "torch_dtype"): dtype,
    }
    for name, value in tokens.items():
        if value is not None:
            written.setdefault(f"{name}_token_id", value)
    return written


_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings",
)  # fmt: skip
# auto_map names Python files that are not among the weights; RoPE and dtype are written anew.
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
_NOT_CARRIED = ("auto_map", "dtype", "torch_dtype", "ltu_as")


def _family(
    config: Mapping[str, Any], said: Mapping[str, Any]
) -> tuple[str, str, dict[str, bool | None]]:
    """Return model_type, architecture and, where we choose them, the settings of no window."""
    family, window = said.get("model_type"), {}
    if family not in MODEL_TYPES or (family == "qwen2") != config["attention_bias"]:
        # transformers refuses a LLaMA whose width is no multiple of its heads; Mistral's, without
        # a window, is the same computation
        whole = config["hidden_size"] % config["num_attention_heads"] == 0
        family = "qwen2" if config["attention_bias"] else "llama" if whole else "mistral"
        window = {"qwen2": {"use_sliding_window": False}, "mistral": {"sliding_window": None}}.get(
            family, {}
        )
    return family, CLASSES[family], window


def _rope(config: Mapping[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Return RoPE as the source spells it if it is what we compute, else in the older spelling."""
    theta, scaling = config["rope_theta"], config["rope_scaling"]
    rope = {key: said.pop(key) for key in _ROPE if key in said}
    if rope and hf_rope.from_config(rope, subject="source_config", default=_HF_DEFAULT_THETA) == (
        theta,
        scaling,
    ):
        return rope if "rope_parameters" in rope else rope | {"rope_theta": theta}
    return {
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else {"rope_type": "llama3", **scaling},
    }
