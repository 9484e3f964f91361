"""Parameters as a flat dict, and the one function that reads an ordered table of rules.

Outside `ltu_jax/models` a parameter tree is `{"tltr.time_tr.attn.query.kernel": array, ...}`.
Freezing, learning rates, sharding and weight conversion are tables of (regular expression, value)
over those paths, and `label` is the only reader of such tables.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ltu_jax.core.axes import Array

Params = dict[str, Array]
Value = TypeVar("Value")

_SHOWN = 10


def shorten(names: Iterable[str]) -> str:
    """The first ten names and how many more there are, for an error message."""
    names = sorted(names)
    more = f" ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


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
    """Part a flat tree into the paths labelled `wanted` and the rest, order kept."""
    chosen = {path: leaf for path, leaf in params.items() if labels[path] == wanted}
    rest = {path: leaf for path, leaf in params.items() if labels[path] != wanted}
    return chosen, rest


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Join flat trees; a path in two of them is a ValueError."""
    merged: dict[str, Any] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ValueError(f"parameters given twice: {shorten(twice)}")
        merged.update(part)
    return merged


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `{"a.b": x}` into `{"a": {"b": x}}`."""
    nested: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return nested


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn `{"a": {"b": x}}` into `{"a.b": x}`."""
    leaves: dict[str, Any] = {}
    for name, node in nested.items():
        if isinstance(node, Mapping):
            leaves.update(flat(node, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = node
    return leaves


def count(params: Mapping[str, Any]) -> int:
    """Number of scalars in a tree of arrays or of shapes."""
    return sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in params.values())
