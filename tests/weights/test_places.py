"""Weights that lie in a bucket: read as on a disk, copied here once, written there whole."""

import os

import numpy as np
import pytest

from ltu_jax import convert
from ltu_jax.core import bucket_copies, paths
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.run.weights_identity import identify
from ltu_jax.inference import load
from ltu_jax.weights import places
from ltu_jax.weights.open import base_entry, open_adapter, open_base, open_model, open_weights
from tests.support.bucket import NAME


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of this user's copies, empty; requests are so small that files need several."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "_PIECE", 5000)
    monkeypatch.setattr(bucket_copies, "_AHEAD", 3)
    monkeypatch.setattr(bucket_copies, "_held", {})
    return tmp_path / "cache" / "ltu_jax" / "buckets"


@pytest.fixture
def reads(monkeypatch):
    """The names of the objects that were read in pieces."""
    names, read = [], paths.read_range

    def noted(path, **how):
        names.append(path.name)
        return read(path, **how)

    monkeypatch.setattr(paths, "read_range", noted)
    return names


def test_weights_in_a_bucket_are_those_of_the_disk(bucket, cache, reads, tiny_weights):
    model = bucket.take(tiny_weights["ltu-as"], "weights/ltu-as")
    whisper = bucket.take(tiny_weights["whisper"], "weights/whisper")
    here = load(tiny_weights["ltu-as"], whisper=tiny_weights["whisper"])
    there = load(model, whisper=whisper)
    for path, leaf in here.params.items():
        assert np.array_equal(leaf, there.params[path])
    assert there.tokenizer.identity == here.tokenizer.identity
    copied = len(reads)
    assert copied > 4
    told, _ = identify(paths.as_path(model), bases={"whisper": paths.as_path(whisper)})
    local, _ = identify(tiny_weights["ltu-as"], bases={"whisper": tiny_weights["whisper"]})
    assert told | {"path": ""} == local | {"path": ""}
    entry = base_entry(open_weights(whisper), relative_to="gs://b/run/checkpoints/2")
    assert entry["path"] == entry["absolute_path"] == whisper
    opened = open_base(entry, relative_to="gs://b/run/checkpoints/2", subject="Whisper")
    assert opened.sha256 == open_weights(tiny_weights["whisper"]).sha256
    assert len(reads) == copied  # the copies were used


def test_another_generation_is_copied_anew_and_the_old_copy_goes(bucket, cache, reads, tmp_path):
    (tmp_path / "a").mkdir()
    for name, text in (("x.json", "{}"), ("m.safetensors", "a" * 12_000), ("m.bin", "no")):
        (tmp_path / "a" / name).write_text(text)
    address = bucket.take(tmp_path / "a", "a")
    first = places.find(address, option="--weights").path
    assert {path.name for path in first.iterdir()} == {"x.json", "m.safetensors"}
    assert (first / "m.safetensors").read_text() == "a" * 12_000
    assert reads.count("m.safetensors") == 3
    paths.as_path(f"{address}/m.safetensors").write_text("b" * 12_000)
    second = places.find(address, option="--weights").path
    assert (second / "m.safetensors").read_text() == "b" * 12_000
    assert first.exists()  # as this process may still read it
    os.close(bucket_copies._held.pop(first.parent))
    assert places.find(address, option="--weights").path == second
    assert not first.exists()
    single = places.find(f"{address}/m.bin", option="--weights").path
    assert single.read_text() == "no"


def test_a_copying_goes_on_where_it_was_killed(bucket, cache, reads, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / "a" / name).write_text(name * 1000)
    address = bucket.take(tmp_path / "a", "a")
    read = paths.read_range

    def break_off(path, **how):
        if path.name == "b.safetensors":
            raise OSError(5, "the network is gone")
        return read(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "read_range", break_off)
        with pytest.raises(UserError, match=address):
            places.find(address, option="--weights")
    reads.clear()
    found = places.find(address, option="--weights").path
    assert set(reads) == {"b.safetensors"}
    assert (found / "b.safetensors").read_text() == "b.safetensors" * 1000


def test_what_arrives_damaged_is_never_used(bucket, cache, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.safetensors").write_text("x" * 100)
    address = bucket.take(tmp_path / "a", "a")
    with monkeypatch.context() as patch:
        patch.setattr(paths, "read_range", lambda path, *, start, size: b"y" * size)
        with pytest.raises(UserError, match="a.safetensors"):
            places.find(address, option="--weights")
    assert not list(cache.rglob("a.safetensors*"))


def test_a_bucket_or_folder_that_is_not_there_is_named(bucket, cache):
    with pytest.raises(UserError, match=f"whisper gs://{NAME}/none"):
        open_weights(f"gs://{NAME}/none", option="whisper")
    bucket.vanish()
    for call in (open_weights, open_model, open_adapter):
        with pytest.raises(UserError, match=NAME):
            call(f"gs://{NAME}/none")


def test_a_folder_that_holds_folders_only_is_named(bucket, cache, tiny_weights):
    address = bucket.take(tiny_weights["whisper"].parent, "all")
    with pytest.raises(UserError, match=f"--whisper {address} has none of .*whisper/config.json"):
        open_weights(address, option="--whisper")


def test_an_error_about_a_copy_names_the_address(bucket, cache, tiny_weights):
    whisper = bucket.take(tiny_weights["whisper"], "whisper")
    for call in (lambda: open_weights(whisper, kind="llama"), lambda: open_adapter(whisper)):
        with pytest.raises(UserError, match="'whisper' weights") as error:
            call()
        assert whisper in str(error.value)


def test_what_is_copied_is_all_that_is_read():
    named = ["config.json", "model.bin.part0", "model.bin.part1", "notes.md"]
    assert places.needed(named) == named[:3]  # CTranslate2 in parts
    named = ["adapter_config.json", "adapter_model.bin", "ltu_as_audio.safetensors", "x.pt"]
    assert places.needed(named) == named[:3]
    assert places.needed(["adapter_model.bin", "pytorch_model.bin"]) == [
        "adapter_model.bin", "pytorch_model.bin",
    ]  # fmt: skip


def test_convert_says_what_lies_in_a_bucket_and_whether_it_is_whole(
    bucket, cache, tiny_weights, capsys
):
    ours, out = bucket.take(tiny_weights["whisper"], "ours"), f"gs://{NAME}/exported"
    convert.export_weights("hf", checkpoint=tiny_weights["whisper"], out=out)

    def told(command, address):
        capsys.readouterr()
        command(paths.as_path(address))
        return capsys.readouterr().out

    for address in (ours, out):
        for command in (convert.verify_folder, convert.info):
            said = told(command, address)
            assert address in said and str(cache) not in said
        assert told(convert.verify_folder, address).endswith("good\n")
    file = paths.as_path(f"{out}/model.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"{out}/model.safetensors was changed"):
        convert.verify_folder(paths.as_path(out))
    paths.as_path(f"{out}/SHA256SUMS").unlink()
    assert told(convert.verify_folder, out).endswith("good\n")  # numbers, all of them


def test_a_conversion_is_written_to_a_bucket_whole(bucket, cache, tiny_weights):
    out, whisper = f"gs://{NAME}/exported", tiny_weights["whisper"]
    convert.export_weights("hf", checkpoint=whisper, out=out)
    names = bucket.names()
    assert "exported/model.safetensors" in names and "exported/SHA256SUMS" in names
    convert.import_weights("hf-whisper", weights=[out], out=f"gs://{NAME}/again")
    again = open_weights(f"gs://{NAME}/again")
    assert again.sha256 == open_weights(whisper).sha256 and again.source["name"] == out
    generation = bucket.generation(NAME, "exported/model.safetensors")
    convert.export_weights("hf", checkpoint=whisper, out=out)  # what is there already stays
    assert bucket.generation(NAME, "exported/model.safetensors") == generation
    paths.as_path(f"{out}/mine.txt").write_text("notes")
    with pytest.raises(UserError, match="mine.txt"):
        convert.export_weights("hf", checkpoint=whisper, out=out)


def test_a_half_written_folder_has_no_settings_and_is_gone_on_with(bucket, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    for name in (".mark", "config.json", "a.safetensors", "tokenizer.json"):
        (tmp_path / "new" / name).write_text(name)
    address = paths.as_path(f"gs://{NAME}/w")
    bucket_copies.publish(tmp_path / "new", address, marker=".mark")
    for name in ("a.safetensors", "config.json"):
        (tmp_path / "new" / name).write_text("newer")
    upload = paths.upload

    def stop_before_the_end(file, target):
        if target.name == "config.json":
            raise OSError(5, "the power is gone")
        upload(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "upload", stop_before_the_end)
        with pytest.raises(UserError, match="gs://"):
            bucket_copies.publish(tmp_path / "new", address, marker=".mark")
    assert bucket.names() == ["w/.mark", "w/a.safetensors", "w/tokenizer.json"]
    bucket_copies.publish(tmp_path / "new", address, marker=".mark")
    assert bucket.content("w/config.json") == b"newer"
