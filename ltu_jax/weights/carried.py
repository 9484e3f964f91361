"""What a source said and we do not use: kept beside the weights, given back by exports.

A weights directory has the `config.json` and `generation_config.json` of the Hugging Face model it
was made of, word for word, under two keys of its own `config.json`. We compute with neither; the
number of positions, the end tokens, the sliding window and the rest belong to whoever loads the
export.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.weights import store
from ltu_jax.weights.settings import read_settings
from ltu_jax.weights.tensors import WeightsError

CONFIG, GENERATION = "source_config", "source_generation_config"  # keys in our config.json


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The source's `config.json` and `generation_config.json`; None where there was none."""

    config: Mapping[str, Any] | None = None
    generation: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys of a weights directory's config.json; none for what is not known."""
        both = {CONFIG: self.config, GENERATION: self.generation}
        return {key: dict(value) for key, value in both.items() if value is not None}


NOTHING = Carried()


def from_json(settings: Mapping[str, Any], *, what: str) -> Carried:
    """The inverse of `Carried.to_json`, of settings that may have other keys as well.

    Raises:
        WeightsError: one of the two is no object.
    """
    for key in (CONFIG, GENERATION):
        if not isinstance(settings.get(key), Mapping | None):
            raise WeightsError(f"{what}: {key} is {settings[key]!r}; expected a JSON object")
    return Carried(config=settings.get(CONFIG), generation=settings.get(GENERATION))


def of_folder(path: str | os.PathLike) -> Carried:
    """What a weights directory of ours carries, or what a Hugging Face directory says itself."""
    path = Path(path)
    if not (path / "config.json").is_file():
        return NOTHING
    settings = read_settings(path / "config.json")
    if "ltu_jax" in settings:
        return from_json(settings, what=str(path / "config.json"))
    if "model_type" not in settings:
        return NOTHING
    generation = path / store.GENERATION_FILE
    return Carried(
        config=settings, generation=read_settings(generation) if generation.is_file() else None
    )
