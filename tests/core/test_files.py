"""Atomic output, hashes, JSON errors, and names that are read from files."""

import hashlib
import os
from pathlib import Path

import pytest

from ltu_jax.core import files
from ltu_jax.core.errors import UserError
from ltu_jax.core.outputs import MARKER, Maker

MAKER = Maker(name="`this test`")


def test_atomic_dir_appears_only_when_complete(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), files.atomic_dir(target, MAKER) as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.atomic_dir(target, MAKER) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with files.atomic_dir(target, MAKER) as folder:
        (folder / "b").write_text("2")
    assert {path.name for path in target.iterdir()} == {"b", MARKER}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_came_there_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(UserError, match="'thesis'"), files.atomic_dir(target, MAKER) as folder:
        (folder / "a").write_text("1")
        target.mkdir()
        (target / "thesis").write_text("years of work")
    assert (target / "thesis").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_link_stays_a_link(tmp_path, broken):
    disk, link = tmp_path / "disk", tmp_path / "link"
    if not broken:
        disk.mkdir()
    link.symlink_to("disk")
    for content in ("1", "2"):
        with files.atomic_dir(link, MAKER) as folder:
            (folder / "a").write_text(content)
        assert os.readlink(link) == "disk" and (disk / "a").read_text() == content
    (tmp_path / "json").symlink_to("target.json")
    files.write_json(tmp_path / "json", [1])
    assert (tmp_path / "json").is_symlink()
    assert files.read_json(tmp_path / "target.json") == [1]
    assert len(list(tmp_path.iterdir())) == 4


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


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "a/../../secret", "..", ".", "", " ", "/etc/passwd", "//host/share", "a\0b",
        "a\nb", "C:\\secret", "C:secret", "\\\\host\\share", "..\\secret", "a\\..\\..\\b", 3, None,
        ["a"], "out/secret", "loop", "folder-link/secret",
    ],
)  # fmt: skip
def test_a_name_from_a_file_leads_nowhere_else(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "folder-link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError) as caught:
        files.inside(folder, name, where="listing.json")
    assert "listing.json" in str(caught.value) and repr(str(name)) in str(caught.value)


def test_names_below_the_folder_are_taken(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "rev").mkdir(parents=True)
    (tmp_path / "blobs" / "abc").write_text("weights")
    hub = tmp_path / "snapshots" / "rev"
    (hub / "model.safetensors").symlink_to("../../blobs/abc")  # as Hugging Face's cache has it
    assert files.inside(hub, "model.safetensors", where="x").read_text() == "weights"
    (hub / "deep").mkdir()
    (hub / "deep" / "within").symlink_to("../model.safetensors")
    for name in ("deep/within", "deep/ä ö..flac", "..hidden", "a b", "AC:x"):
        assert files.inside(hub, name, where="x") == hub / name
    (tmp_path / "elsewhere.wav").touch()
    (hub / "a.wav").symlink_to(tmp_path / "elsewhere.wav")
    with pytest.raises(UserError, match=r"'a\.wav'"):
        files.inside(hub, "a.wav", where="x")
    assert files.inside(hub, "a.wav", where="x", owned=True) == hub / "a.wav"
    assert files.inside(hub, "/data/a.wav", where="x", owned=True) == Path("/data/a.wav")
    with pytest.raises(UserError, match="whole path"):
        files.inside(hub, "../a.wav", where="x", owned=True)
