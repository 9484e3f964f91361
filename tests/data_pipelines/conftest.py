"""Records of a tiny corpus, written once for all tests of this folder."""

import shutil
from pathlib import Path

import pytest

from data_pipelines.records.schema import AnnotatedClip
from ltu_jax.preprocessing.text import load_tokenizer
from tests.support import records_corpus


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> list[AnnotatedClip]:
    """The clips of the tiny corpus, audio as FLAC files."""
    return records_corpus.make_clips(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="session")
def records_dir() -> Path:
    """Their records, two shards a split, with the tokens of every pair. Read only."""
    return records_corpus.records_dir()


@pytest.fixture
def records_copy(records_dir, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(records_dir, tmp_path / "records")


@pytest.fixture(scope="session")
def tokenizer():
    """The 320-piece vocabulary of the golden text cases."""
    return load_tokenizer(records_corpus.TOKENIZER)
