"""PEFT's `adapter_config.json`: what of it we can hold, and what would change the numbers.

LoRA of ours is y = W x + B A x * alpha / r on every layer of the chosen projections. PEFT knows
many more settings; one that is set and is not that formula is refused by its name, because a
loader that skips it computes something else without a word (peft, `LoraConfig`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.tensors import WeightsError

FILE = "adapter_config.json"
TARGETS = (*hf_llama.ATTENTION, *hf_llama.MLP)

# Keys that say nothing about the numbers of a loaded adapter, or that are read below.
_READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights"}
_FREE = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules",
    "inference_mode", "layers_pattern", "megatron_core", "merge_weights", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
_WHY = {
    "alpha_pattern": "layers with another alpha",
    "bias": "trained biases of the base",
    "fan_in_fan_out": "a base with transposed kernels",
    "layer_replication": "layers of the base used more than once",
    "layers_to_transform": "LoRA on some layers only",
    "lora_bias": "biases of the LoRA branch",
    "modules_to_save": "whole modules of the base replaced",
    "rank_pattern": "layers with another rank",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "trained rows of the embedding",
    "use_dora": "weights rescaled by DoRA's magnitudes",
    "use_rslora": "a scale of alpha / sqrt(r)",
}
# These initialisers leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change it.
_INIT = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The part of an `adapter_config.json` that we use; `targets` is None where it is a pattern."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | None
    base_name: str | None


def read(path: Path) -> AdapterConfig:
    """Read and check an `adapter_config.json`.

    Raises:
        WeightsError: not LoRA, a key missing, targets we cannot hold, or a setting that changes
            the numbers in a way our LoRA does not compute.
    """
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} is not a JSON object")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise WeightsError(f"{path}: peft_type {kind!r} is not implemented; 'LORA' is")
    for key, value in sorted(settings.items()):
        if key in _READ | _FREE or not value or (key, value) == ("bias", "none"):
            continue
        why = _WHY.get(key, "a setting of PEFT that is unknown here")
        raise WeightsError(
            f"{path}: {key} is {value!r}: {why}, which our LoRA does not compute; merge the "
            "adapter with peft's merge_and_unload() and import the merged model, or train without"
        )
    if settings.get("init_lora_weights", True) not in _INIT:
        raise WeightsError(
            f"{path}: init_lora_weights {settings['init_lora_weights']!r} changes the base "
            "weights, so the adapter does not fit the plain base; save it with peft's "
            "save_pretrained(path_initial_model_for_weight_conversion=...), which makes it fit"
        )
    for key, kind in (("r", int), ("lora_alpha", int | float), ("lora_dropout", int | float)):
        value = settings.get(key, 0.0 if key == "lora_dropout" else None)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise WeightsError(f"{path}: {key} is {value!r}; expected a number")
    base_name = settings.get("base_model_name_or_path")
    if not isinstance(base_name, str | None):
        raise WeightsError(f"{path}: base_model_name_or_path is {base_name!r}; expected a name")
    return AdapterConfig(
        rank=settings["r"],
        alpha=float(settings["lora_alpha"]),
        dropout=float(settings.get("lora_dropout", 0.0)),
        # what is excluded changes the list: the names of the tensors tell then
        targets=None
        if settings.get("exclude_modules")
        else _targets(settings.get("target_modules"), path=path),
        base_name=base_name,
    )


def _targets(value: Any, *, path: Path) -> tuple[str, ...] | None:
    if value == "all-linear":
        return TARGETS
    if isinstance(value, str):
        return None  # a regular expression: the names of the tensors tell
    if not isinstance(value, list) or not value or not all(isinstance(n, str) for n in value):
        raise WeightsError(f"{path}: target_modules is {value!r}; expected a list of names")
    known = {name: name for name in TARGETS} | {hf_llama.projection(n): n for n in TARGETS}
    lost = sorted(name for name in value if name not in known)
    if lost:
        raise WeightsError(
            f"{path}: target_modules has {', '.join(lost)}; LoRA is held on {', '.join(TARGETS)} "
            "of every layer only"
        )
    return tuple(name for name in TARGETS if name in {known[entry] for entry in value})


def to_json(lora: Mapping[str, Any], *, base_name: str) -> dict[str, Any]:
    """Return the `adapter_config.json` of a LoRAConfig dict, for peft 0.3 and later."""
    alpha = lora["alpha"]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": lora["rank"],
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora["dropout"],
        "target_modules": list(lora["targets"]),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
