"""The facts of an LTU-AS that no official state dict says, and who says them instead.

LoRA's alpha and dropout, the heads of TLTR, the number of audio layers and tokens are in no shape
of it; the official code has them as constants. Here they are told by the record of our own export,
by the folder, by `--llama` and by options. Whoever speaks must agree with the others and with the
shapes; only where nobody speaks do the official constants hold, and only for the official LoRA.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.weights.formats import peft_config
from ltu_jax.weights.tensors import WeightsError

OFFICIAL_ALPHA, OFFICIAL_DROPOUT = 16.0, 0.05
OFFICIAL_RANK, OFFICIAL_TARGETS = 8, ("q_proj", "v_proj")
OFFICIAL_HEADS = {"time_heads": 1, "layer_heads": 8}
AUDIO_TOKENS = 25  # of a 10 s window; fixed in the official model
_OFFICIAL_THETA = 10_000.0
# Width of a Whisper encoder -> its layers: the state dict does not tell how many layers TLTR sees.
WHISPER_DEPTH = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}

Facts = Mapping[str, Any]  # those keys of an LTUASConfig dict that are known


def agreed(claims: Mapping[str, Facts | None], *, subject: str) -> dict[str, Any]:
    """Return what all claims say together.

    Args:
        claims: who speaks -> its facts; None and missing keys say nothing.
        subject: how errors call the weights.

    Raises:
        WeightsError: two of them contradict each other.
    """
    values: dict[str, Any] = {}
    teller: dict[str, str] = {}
    for who, facts in claims.items():
        for key, value in _flat(facts or {}):
            if key in values and values[key] != value:
                raise WeightsError(
                    f"{subject}: {key} is {values[key]} by {teller[key]} and {value} by {who}; "
                    "they must agree: leave out the option, or give the one that belongs to the "
                    "weights"
                )
            if key not in values:
                values[key], teller[key] = value, who
    nested: dict[str, Any] = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return nested


def _flat(facts: Facts) -> list[tuple[str, Any]]:
    pairs = [(key, facts.get(key)) for key in ("audio_layers", "audio_tokens")]
    for group in ("tltr", "lora"):
        inner = facts.get(group)
        if isinstance(inner, Mapping):
            pairs += [(f"{group}.{key}", value) for key, value in inner.items()]
    return [
        (key, list(value) if isinstance(value, tuple) else value)
        for key, value in pairs
        if value is not None
    ]


def compare_llama(
    wanted: Mapping[str, Any] | None, found: Mapping[str, Any], *, base: Path, subject: str
) -> None:
    """Require the language model that the weights name.

    Raises:
        WeightsError: `found`, the config of `base`, has another value somewhere.
    """
    for key in [key for key in found if wanted is not None and wanted.get(key) != found[key]]:
        raise WeightsError(
            f"{subject} was trained over a base with {key} {wanted.get(key)}; "
            f"{base} has {found[key]}"
        )


def options(*, audio_layers: int | None, lora_alpha: float | None = None) -> dict[str, Facts]:
    """Return what a person says, as claims.

    Raises:
        WeightsError: a number that no model has.
    """
    if lora_alpha is not None and not math.isfinite(lora_alpha):
        raise WeightsError(f"--lora-alpha {lora_alpha}: give a finite number")
    return {
        "--audio-layers": {"audio_layers": audio_layers},
        "--lora-alpha": {"lora": {"alpha": None if lora_alpha is None else float(lora_alpha)}},
    }


def lora(
    shape: tuple[int, tuple[str, ...]] | None, *, known: Facts, beside: Path, subject: str
) -> dict[str, Any] | None:
    """Return the LoRAConfig of a state dict.

    Args:
        shape: rank and targets by the tensors, None where they have no LoRA.
        known: what is said of LoRA (`agreed`).
        beside: an adapter_config.json that may lie there; it speaks where nobody else does.
        subject: how errors call the state dict.

    Raises:
        WeightsError: a rank or targets that the tensors contradict, or an alpha that nobody knows.
    """
    if shape is None:
        if known.get("rank") is not None:
            raise WeightsError(f"{subject} has no LoRA, but its config says {dict(known)}")
        return None
    rank, targets = shape
    given = peft_config.read(beside) if beside.is_file() else None
    if known.get("rank", rank) != rank:
        raise WeightsError(
            f"{subject}: lora_A has {rank} rows, its config says rank {known['rank']}"
        )
    if set(known.get("targets", targets)) != set(targets):
        raise WeightsError(
            f"{subject}: LoRA is on {', '.join(targets)}; its config says "
            f"{', '.join(known['targets'])}"
        )
    alpha = known.get("alpha", given.alpha if given else None)
    if alpha is None:
        if (rank, set(targets)) != (OFFICIAL_RANK, set(OFFICIAL_TARGETS)):
            raise WeightsError(
                f"{subject}: LoRA of rank {rank} on {', '.join(targets)} is not the official one "
                f"(rank {OFFICIAL_RANK} on {', '.join(OFFICIAL_TARGETS)}), and no state dict tells "
                "alpha: give the alpha that it was trained with, --lora-alpha ALPHA"
            )
        alpha = OFFICIAL_ALPHA
    return {
        "rank": rank,
        "alpha": float(alpha),
        "dropout": float(known.get("dropout", given.dropout if given else OFFICIAL_DROPOUT)),
        "targets": list(known.get("targets", targets)),
    }


def unlike_official(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what this LTUASConfig has otherwise than the constants of the official code."""
    llama, adapter = config["llama"], config["lora"]
    wanted: dict[str, tuple[Any, Any]] = {
        "TLTR time heads": (config["tltr"]["time_heads"], OFFICIAL_HEADS["time_heads"]),
        "TLTR layer heads": (config["tltr"]["layer_heads"], OFFICIAL_HEADS["layer_heads"]),
        "audio tokens": (config["audio_tokens"], AUDIO_TOKENS),
        "rope_theta": (llama["rope_theta"], _OFFICIAL_THETA),
        "rope_scaling": ("llama3" if llama["rope_scaling"] else None, None),
        "num_key_value_heads": (llama["num_key_value_heads"], llama["num_attention_heads"]),
        "head_dim": (
            llama["head_dim"] * llama["num_attention_heads"],
            llama["hidden_size"],
        ),
        "attention_bias": (llama["attention_bias"], False),
    }
    if adapter is not None:
        wanted |= {
            "LoRA rank": (adapter["rank"], OFFICIAL_RANK),
            "LoRA alpha": (adapter["alpha"], OFFICIAL_ALPHA),
            "LoRA targets": (
                ", ".join(sorted(adapter["targets"])),
                ", ".join(OFFICIAL_TARGETS),
            ),
        }
    return tuple(
        f"{name} {value} (there {there})"
        for name, (value, there) in wanted.items()
        if value != there
    )
