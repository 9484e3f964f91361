"""Where dataset readers look for files, and how they say that nothing is there."""

import pytest

from data_pipelines.metadata import table_files
from ltu_jax.core.errors import UserError


def test_the_first_place_that_exists_is_taken(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    assert table_files.find(tmp_path, ("a", "b", "c"), expected="data") == tmp_path / "b"


def test_all_places_are_named_when_none_exists(tmp_path):
    with pytest.raises(UserError, match="has no a or b: give the data"):
        table_files.find(tmp_path, ("a", "b"), expected="the data")


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: it should be the data"):
        table_files.find(tmp_path / "nowhere", ("a",), expected="the data")


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(UserError, match="GTZAN has no split 'test': use one of all, few"):
        table_files.check_split("test", ("all", "few"), dataset="GTZAN")


def test_files_come_by_name_without_those_of_macos(tmp_path):
    for name in ("b.wav", "._a.wav", "a.wav", ".DS_Store"):
        (tmp_path / name).touch()
    assert [path.name for path in table_files.visible(tmp_path)] == ["a.wav", "b.wav"]


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "audio").touch()
    with pytest.raises(UserError, match="audio is not a folder"):
        table_files.visible(tmp_path / "audio")
