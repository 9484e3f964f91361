"""Rotary embedding in foreign files: theta and scaling in configs, buffers in state dicts."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltu_jax.weights.settings import positive
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

_INV_FREQ = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq")
# relative error that storing an inverse frequency in a dtype makes
_INV_FREQ_TOLERANCE = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


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
        kind = rest[name].dtype.name
        if kind not in _INV_FREQ_TOLERANCE or rest[name].nbytes > 1 << 20:
            raise WeightsError(
                f"{what}: {name} is {list(rest[name].shape)} of {kind}; expected {wanted.size} "
                "fractions"
            )
        found = rest.pop(name).read()
        tolerance = _INV_FREQ_TOLERANCE[kind]
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


def from_config(
    settings: Mapping[str, Any], *, what: str, default: float | None
) -> tuple[float, dict[str, Any] | None]:
    """theta and llama3 scaling of a Hugging Face config (both spellings: transformers 4 and 5).

    Args:
        settings: the config.
        what: how errors call it.
        default: theta of a config that says none; None refuses it.

    Raises:
        WeightsError: no theta, or a scaling other than none and llama3.
    """
    parameters = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise WeightsError(f"{what}: the RoPE parameters are {parameters!r}; expected an object")
    theta = settings.get("rope_theta", parameters.get("rope_theta"))
    if theta is None:
        if default is None:
            raise WeightsError(f"{what} has no rope_theta; add it (10000 for LLaMA-1 and Vicuna)")
        theta = default
    theta = positive({"rope_theta": theta}, "rope_theta", what=what)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise WeightsError(f"{what}: RoPE scaling {kind!r} is not implemented; llama3 is")
    names = (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    )  # fmt: skip
    absent = [name for name in names if name not in parameters]
    if absent:
        raise WeightsError(f"{what}: RoPE scaling llama3 lacks {', '.join(absent)}")
    for name in names:
        positive(parameters, name, what=what)
    return theta, {name: parameters[name] for name in names}
