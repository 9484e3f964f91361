"""Rotary embedding in foreign files: theta and scaling in configs, buffers in state dicts."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltu_jax.weights.files.config_json import positive
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

_INV_FREQ = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq")
# relative error that storing an inverse frequency in a dtype makes
_INV_FREQ_TOLERANCE = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def inverse_frequencies(*, head_dim: int, theta: float) -> np.ndarray:
    """Return the official buffer, float32 [H/2]: 1 / theta ** (2i / H) in float32 steps."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # the power in double and one rounding is what PyTorch's float32 power gives
    power = (np.float64(theta) ** exponent.astype(np.float64)).astype(np.float32)
    return np.float32(1.0) / power


def check_inv_freq(
    tensors: Tensors, *, head_dim: int, theta: float, subject: str
) -> dict[str, Tensor]:
    """Verify every `rotary_emb.inv_freq` buffer against theta and leave them out.

    Raises:
        WeightsError: a buffer that another theta or head size has made.
    """
    rest = dict(tensors)
    wanted = inverse_frequencies(head_dim=head_dim, theta=theta).astype(np.float64)
    for name in [name for name in tensors if _INV_FREQ.fullmatch(name)]:
        kind = rest[name].dtype.name
        if kind not in _INV_FREQ_TOLERANCE or rest[name].nbytes > 1 << 20:
            raise WeightsError(
                f"{subject}: {name} is {list(rest[name].shape)} of {kind}; expected {wanted.size} "
                "fractions"
            )
        frequencies = rest.pop(name).read()
        tolerance = _INV_FREQ_TOLERANCE[kind]
        values = frequencies.astype(np.float64)
        if values.shape != wanted.shape:
            raise WeightsError(
                f"{subject}: {name} has {frequencies.size} values, expected {wanted.size} "
                f"(head size {head_dim}); check num_attention_heads in --llama"
            )
        if not np.allclose(values, wanted, rtol=tolerance, atol=1e-7 if tolerance > 1e-5 else 0):
            base = float(values[-1] ** (-head_dim / (head_dim - 2))) if head_dim > 2 else 0.0
            raise WeightsError(
                f"{subject}: {name} belongs to rope_theta {base:.6g}, the config says {theta:.6g}"
            )
    return rest


def _parameters(settings: Mapping[str, Any], *, subject: str) -> Mapping[str, Any]:
    """Return the RoPE parameters by their name in transformers 4 or 5; both must agree."""
    both = [settings[key] for key in ("rope_parameters", "rope_scaling") if settings.get(key)]
    for stated in both:
        if not isinstance(stated, Mapping):
            raise WeightsError(f"{subject}: the RoPE parameters are {stated!r}; expected an object")
        if any(isinstance(value, Mapping) for value in stated.values()):
            raise WeightsError(
                f"{subject}: RoPE parameters by kind of layer are not implemented: {list(stated)}"
            )
        kinds = {stated[key] for key in ("rope_type", "type") if stated.get(key) is not None}
        if len(kinds) > 1:
            raise WeightsError(
                f"{subject}: the RoPE parameters say rope_type {stated['rope_type']!r} and type "
                f"{stated['type']!r}; correct one of them"
            )
    if len(both) == 2:
        keys = set(both[0]) & set(both[1])
        apart = sorted(key for key in keys if both[0][key] != both[1][key])
        if apart or (set(both[0]) ^ set(both[1])) - {"rope_theta", "type", "rope_type"}:
            key = (apart or sorted(set(both[0]) ^ set(both[1])))[0]
            raise WeightsError(
                f"{subject}: rope_parameters and rope_scaling differ: {key} is {both[0].get(key)!r}"
                f" and {both[1].get(key)!r}; correct one of them"
            )
    return {key: value for stated in both for key, value in stated.items()}


def _one_value(
    key: str, settings: Mapping[str, Any], parameters: Mapping[str, Any], *, subject: str
) -> Any:
    """Return a value that may stand at the top of a config or among its RoPE parameters.

    Raises:
        WeightsError: it stands at both places with two values; transformers takes the inner one of
            some and the outer one of others.
    """
    top, inner = settings.get(key), parameters.get(key)
    if None not in (top, inner) and top != inner:
        raise WeightsError(
            f"{subject}: {key} is {top!r} at the top of the config and {inner!r} among its RoPE "
            "parameters; correct the wrong one"
        )
    return inner if top is None else top


def from_config(
    settings: Mapping[str, Any], *, subject: str, default: float | None
) -> tuple[float, dict[str, Any] | None]:
    """Return theta and llama3 scaling of a Hugging Face config (transformers 4 and 5).

    Args:
        settings: the config.
        subject: how errors call it.
        default: theta of a config that says none; None refuses it.

    Raises:
        WeightsError: no theta, a scaling other than none and llama3, or values that contradict
            each other.
    """
    parameters = _parameters(settings, subject=subject)
    theta = _one_value("rope_theta", settings, parameters, subject=subject)
    rotated = _one_value("partial_rotary_factor", settings, parameters, subject=subject)
    if rotated not in (None, 1, 1.0):
        raise WeightsError(
            f"{subject}: partial_rotary_factor is {rotated!r}, which is not implemented; 1.0 is"
        )
    if theta is None:
        if default is None:
            raise WeightsError(
                f"{subject} has no rope_theta; add it (10000 for LLaMA-1 and Vicuna)"
            )
        theta = default
    theta = positive({"rope_theta": theta}, "rope_theta", subject=subject)
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind == "default":
        if parameters.get("factor") not in (None, 1, 1.0):
            raise WeightsError(
                f"{subject}: the RoPE parameters have the factor {parameters['factor']!r} and no "
                "rope_type that would use it; name the type or remove the factor"
            )
        return theta, None
    if kind != "llama3":
        raise WeightsError(f"{subject}: RoPE scaling {kind!r} is not implemented; llama3 is")
    names = (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    )  # fmt: skip
    absent = [name for name in names if name not in parameters]
    if absent:
        raise WeightsError(f"{subject}: RoPE scaling llama3 lacks {', '.join(absent)}")
    _one_value("original_max_position_embeddings", settings, parameters, subject=subject)
    for name in names:
        positive(parameters, name, subject=subject)
    if parameters["low_freq_factor"] >= parameters["high_freq_factor"]:
        raise WeightsError(
            f"{subject}: low_freq_factor {parameters['low_freq_factor']} is not below "
            f"high_freq_factor {parameters['high_freq_factor']}"
        )
    return theta, {name: parameters[name] for name in names}
