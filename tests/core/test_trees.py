"""The rule tables' one reader, and flat trees."""

import numpy as np
import pytest

from ltu_jax.core import trees


def test_first_matching_rule_wins_and_all_are_used():
    rules = [(r"a\..*", 1), (r"a\.x|b", 2)]
    assert trees.label(rules, ["a.x", "a.y", "b"]) == {"a.x": 1, "a.y": 1, "b": 2}


def test_a_parameter_without_rule_is_named():
    with pytest.raises(ValueError, match=r"no rule matches 1 parameters: c\.d"):
        trees.label([("a", 1)], ["a", "c.d"])


def test_a_rule_without_parameter_is_named():
    with pytest.raises(ValueError, match="1 rules match no parameter: never"):
        trees.label([("a", 1), ("never", 2)], ["a"])


def test_a_pattern_must_match_the_whole_path():
    with pytest.raises(ValueError, match="no rule matches"):
        trees.label([("a", 1)], ["a", "ab"])


def test_split_and_merge_are_inverse():
    params = {"a": np.zeros(2), "b": np.ones(3), "c": np.ones((2, 2))}
    labels = {"a": True, "b": False, "c": True}
    chosen, rest = trees.split(params, labels, True)
    assert list(chosen) == ["a", "c"] and list(rest) == ["b"]
    assert trees.merge(chosen, rest) == params
    assert trees.count(params) == 9
    with pytest.raises(ValueError, match="given twice: a"):
        trees.merge(chosen, {"a": 0})
