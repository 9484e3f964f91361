"""How each class of sound sounds: its acoustic descriptions, each of a few words."""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources


@functools.cache
def class_descriptions() -> Mapping[str, tuple[str, ...]]:
    """Return class -> its descriptions, of class_descriptions.toml."""
    text = resources.files(__package__).joinpath("class_descriptions.toml").read_text()
    return {name: tuple(own) for name, own in tomllib.loads(text)["descriptions"].items()}
