"""What people call classes of sound, and which of them may be heard in one recording of another."""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

_FILE = "class_phrases.toml"


@functools.cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))


def phrases() -> Mapping[str, str]:
    """Return class -> what people call it."""
    return _table()["phrases"]


@functools.cache
def kin() -> frozenset[frozenset[str]]:
    """Return pairs of classes of which one may be heard in a recording of the other."""
    return frozenset(
        frozenset((first, other)) for first, *others in _table()["kin"] for other in others
    )
