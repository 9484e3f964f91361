"""Values out of settings that somebody else wrote, checked before they are computed with."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json
from ltu_jax.weights.tensors import WeightsError

_LARGEST = 1 << 40


def read_settings(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: missing, too large, not JSON, or not an object.
    """
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} is not a JSON object")
    return settings


def refuse_quantised(settings: Mapping[str, Any], *, subject: str) -> None:
    """Refuse a config that says its weights are quantised.

    Raises:
        WeightsError: it does; the message names the method.
    """
    for key in ("quantization_config", "compression_config"):
        value = settings.get(key)
        if value:
            method = value.get("quant_method", value) if isinstance(value, dict) else value
            raise WeightsError(
                f"{subject}: {key} says {_shown(method)}: its weights are quantised, which is not "
                "read. Save them as floating-point numbers (in transformers model.dequantize() and "
                "save_pretrained), or take the original model"
            )


def whole(
    settings: Mapping[str, Any], key: str, *, subject: str, default: int | None = None
) -> int:
    """Return a size or count: an integer of at least 1.

    Args:
        settings: where it should be.
        key: its name there.
        subject: how the error calls the settings.
        default: taken where the key is missing or null; None makes it needed.

    Raises:
        WeightsError: missing, of another type, or out of range.
    """
    value = settings.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise WeightsError(
            f"{subject}: {key} is {_shown(value)}; expected an integer of at least 1"
        )
    return value


def positive(
    settings: Mapping[str, Any], key: str, *, subject: str, default: float | None = None
) -> float:
    """Return a finite number above 0; arguments and errors as of `whole`."""
    value = settings.get(key)
    if value is None and default is not None:
        return default
    if type(value) not in (int, float) or not 0 < value < math.inf or value > 1e30:
        raise WeightsError(f"{subject}: {key} is {_shown(value)}; expected a finite number above 0")
    return float(value)


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 200 else "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}..."
