"""From the config of a weights directory to the shape of every parameter of that model."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.store import ADAPTER


def model_shapes(
    kind: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the validated config as a dict, and the shape of every parameter of that model."""
    typed = _CONFIGS[kind].from_dict(config)
    shapes = {p: leaf.shape for p, leaf in _shapes(typed).items()}
    if kind == ADAPTER:
        shapes = {path: shape for path, shape in shapes.items() if is_adapter(path)}
    return dataclasses.asdict(typed), shapes


_CONFIGS = {
    "whisper": WhisperConfig,
    "llama": LlamaConfig,
    "ltu-as": LTUASConfig,
    "tltr": TaggerConfig,
    ADAPTER: LTUASConfig,
}


@functools.lru_cache(maxsize=8)  # opening a file, checking it and its certificate ask for the same
def _shapes(config: Any) -> Mapping[str, Any]:
    makers = {
        WhisperConfig: Whisper,
        LlamaConfig: Llama.functional,
        LTUASConfig: LTUAS.functional,
        TaggerConfig: Tagger.functional,
    }
    return makers[type(config)](config).shapes
