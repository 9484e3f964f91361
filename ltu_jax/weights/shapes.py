"""From the config of a weights directory to the shape of every parameter of that model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ltu_jax.models import build
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.tltr import TaggerConfig
from ltu_jax.models.whisper import WhisperConfig


def model_shapes(
    kind: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The validated config as a dict, and the shape of every parameter of that model."""
    typed = _CONFIGS[kind].from_dict(config)
    return dataclasses.asdict(typed), {p: leaf.shape for p, leaf in _shapes(typed).items()}


_CONFIGS = {
    "whisper": WhisperConfig,
    "llama": LlamaConfig,
    "ltu-as": LTUASConfig,
    "tltr": TaggerConfig,
}


def _shapes(config: Any) -> Mapping[str, Any]:
    if isinstance(config, TaggerConfig):
        return build.tagger(config.tltr, config.labels, d_input=config.d_input).shapes
    makers = {WhisperConfig: build.whisper, LlamaConfig: build.llama, LTUASConfig: build.ltu_as}
    return makers[type(config)](config).shapes
