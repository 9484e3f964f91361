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
def records_dir(clips, tokenizer, tmp_path_factory) -> Path:
    """Their records, two shards a split, with the tokens of every pair. Read only."""
    from data_pipelines.input.token_counts import token_lengths
    from data_pipelines.records.write import write_records

    out = tmp_path_factory.mktemp("written") / "records"
    write_records(clips, out, tag_labels=records_corpus.LABELS, shards=2)
    for split in ("train", "val"):
        token_lengths(out, split=split, tokenizer=tokenizer, show=False)
    return out


@pytest.fixture
def records_copy(records_dir, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(records_dir, tmp_path / "records")


@pytest.fixture(scope="session")
def tokenizer(golden):
    """The 320-piece vocabulary of the golden text cases."""
    return load_tokenizer(golden / "text_cases" / "spm320.model")
