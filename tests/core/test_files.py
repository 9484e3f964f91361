"""Atomic output, hashes and JSON errors."""

import hashlib

import pytest

from ltu_jax.core import files
from ltu_jax.core.errors import UserError


def test_atomic_dir_appears_only_when_complete(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), files.atomic_dir(target) as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.atomic_dir(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with files.atomic_dir(target) as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sha256_of_a_file_larger_than_one_piece(tmp_path):
    data = bytes(range(256)) * (1 << 15)
    (tmp_path / "file").write_bytes(data)
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "deep" / "value.json"
    files.write_json(path, {"b": [1, 2], "a": None})
    assert files.read_json(path) == {"a": None, "b": [1, 2]}
    with pytest.raises(UserError, match=r"missing\.json does not exist"):
        files.read_json(tmp_path / "missing.json")
    path.write_text("{broken")
    with pytest.raises(UserError, match=r"value\.json is not valid JSON"):
        files.read_json(path)
