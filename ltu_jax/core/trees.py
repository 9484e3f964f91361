"""Parameters as a flat dict, and the function that reads an ordered table of rules.

Outside `ltu_jax/models` a parameter tree is `{"tltr.time_tr.attn.query.kernel": array, ...}`.
Freezing, learning rates, sharding and weight conversion are tables of (regular expression, value)
over those paths, and `label` is the only reader of such tables.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import shorten

Params = dict[str, Array]
Value = TypeVar("Value")


def label(rules: Sequence[tuple[str, Value]], paths: Iterable[str]) -> dict[str, Value]:
    """Give every path the value of the first rule whose pattern matches the whole path.

    Args:
        rules: ordered (regular expression, value) pairs.
        paths: parameter paths.

    Raises:
        ValueError: a path that no rule matches, or a rule that is first for no path. Both are how
            a renamed parameter silently becomes frozen, replicated or lost elsewhere.
    """
    compiled = [(re.compile(pattern), value) for pattern, value in rules]
    used = [False] * len(compiled)
    labels: dict[str, Value] = {}
    unmatched = []
    for path in paths:
        for index, (pattern, value) in enumerate(compiled):
            if pattern.fullmatch(path):
                labels[path] = value
                used[index] = True
                break
        else:
            unmatched.append(path)
    if unmatched:
        raise ValueError(f"no rule matches {len(unmatched)} parameters: {shorten(unmatched)}")
    idle = [pattern for (pattern, _), hit in zip(rules, used, strict=True) if not hit]
    if idle:
        raise ValueError(f"{len(idle)} rules match no parameter: {shorten(idle)}")
    return labels


def split(
    params: Mapping[str, Any], labels: Mapping[str, Value], wanted: Value
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a flat tree into the paths labelled `wanted` and the rest; keep the order."""
    chosen = {path: leaf for path, leaf in params.items() if labels[path] == wanted}
    rest = {path: leaf for path, leaf in params.items() if labels[path] != wanted}
    return chosen, rest


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Join flat trees.

    Raises:
        ValueError: a path is in two of them.
    """
    merged: dict[str, Any] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ValueError(f"parameters given twice: {shorten(twice)}")
        merged.update(part)
    return merged


def count(params: Mapping[str, Any]) -> int:
    """Count the scalars of a tree of arrays or of shapes."""
    return sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in params.values())
