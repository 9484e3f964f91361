"""Choices that depend on a name alone: the same on every machine, in any order, for any worker."""

import functools
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any


def fraction(*names: str) -> float:
    """Return a number in [0, 1) that belongs to these names."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return int.from_bytes(digest[:7]) / (1 << 56)


def choose(options: Sequence[Any], *names: str) -> Any:
    """Return one of the options, by these names."""
    return options[int(fraction(*names) * len(options))]


def lowest(names: Sequence[str], count: int, *, seed: str) -> frozenset[str]:
    """Return so many of the names as have the lowest fractions."""
    return frozenset(sorted(names, key=lambda name: (fraction(seed, name), name))[:count])


@functools.cache
def wordings() -> Mapping[str, tuple[str, ...]]:
    """Return task -> its questions, of wordings.toml."""
    text = resources.files(__package__).joinpath("wordings.toml").read_text()
    return {task: tuple(own) for task, own in tomllib.loads(text)["wordings"].items()}
