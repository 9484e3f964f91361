"""Hashes of large files are remembered while the files stay as they are, and no longer."""

import hashlib
import json
import os

import pytest

from ltu_jax.core.files import sha256_file
from ltu_jax.weights.files import known_hashes, shards
from ltu_jax.weights.tensors import WeightsError


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """The files that were read, in order; every file counts as large and settled."""
    read = []

    def hashed(path):
        read.append(os.path.basename(path))
        return sha256_file(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(known_hashes, "sha256_file", hashed)
    monkeypatch.setattr(known_hashes, "_SMALLEST", 0)
    monkeypatch.setattr(known_hashes, "_SETTLED", -1.0)
    return read


def test_a_file_is_read_once_until_it_changes(tmp_path, reads):
    file = tmp_path / "params.safetensors"
    file.write_bytes(b"one")
    (tmp_path / "link").symlink_to(file)
    one = hashlib.sha256(b"one").hexdigest()
    assert known_hashes.sha256(file) == known_hashes.sha256(tmp_path / "link") == one
    assert reads == [file.name]
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=times)  # of the same size and, it says, not changed since
    assert known_hashes.sha256(file) == hashlib.sha256(b"two").hexdigest()
    with pytest.raises(WeightsError, match=one):
        shards.check_sha256(file, expected=one, known=True)
    assert reads == [file.name] * 2


def test_another_file_with_the_status_of_the_old_one_is_read(tmp_path, reads):
    """Buckets mounted as folders and restored disks make up inodes and times."""
    file = tmp_path / "params.safetensors"
    file.write_bytes(bytes(1 << 20))
    known_hashes.sha256(file)
    changed = bytearray(1 << 20)
    changed[500_000:520_000] = b"\1" * 20_000
    file.write_bytes(changed)
    status, store = file.stat(), tmp_path / "cache" / "ltu_jax" / "hashes.json"
    kept = json.loads(store.read_text())
    times = status.st_mtime_ns, status.st_ctime_ns
    kept[str(file)][:4] = [status.st_size, *times, status.st_ino]
    store.write_text(json.dumps(kept))
    assert known_hashes.sha256(file) == hashlib.sha256(changed).hexdigest()
    assert reads == [file.name] * 2


def test_what_is_kept_may_be_damaged_or_have_no_place(tmp_path, reads, monkeypatch):
    file = tmp_path / "params.safetensors"
    file.write_bytes(b"one")
    known_hashes.sha256(file)
    (tmp_path / "cache" / "ltu_jax" / "hashes.json").write_text("[")
    assert known_hashes.sha256(file) == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # not a folder
    assert known_hashes.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert reads == [file.name] * 3


def test_small_and_fresh_files_are_always_read(tmp_path, reads, monkeypatch):
    file = tmp_path / "params.safetensors"
    file.write_bytes(b"one")
    monkeypatch.setattr(known_hashes, "_SETTLED", 3600.0)  # written a moment ago: may change unseen
    known_hashes.sha256(file), known_hashes.sha256(file)
    monkeypatch.setattr(known_hashes, "_SMALLEST", 1 << 20)
    known_hashes.sha256(file)
    assert reads == [file.name] * 3
