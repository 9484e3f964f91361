"""Readers of tensor files against the libraries that write them."""

import json
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ltu_jax.weights.files import shards, torch_file
from ltu_jax.weights.files.safetensors_file import read_safetensors, write_safetensors
from ltu_jax.weights.tensors import WeightsError, as_tensors


def test_safetensors_as_the_library_writes_them(tmp_path):
    arrays = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.ones((2, 1, 2), np.float16),
        "bf16": np.asarray([1.0, 3.0], ml_dtypes.bfloat16),
        "i64": np.asarray(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape and found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].read(), array)


def test_every_truncation_is_reported(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": np.arange(100, dtype=np.float32)}, file)
    content = file.read_bytes()
    for size in (0, 5, 20, len(content) - 4):
        file.write_bytes(content[:size])
        with pytest.raises(WeightsError, match="is damaged.*interrupted download"):
            read_safetensors(file)
    file.write_bytes(content + b"more")
    with pytest.raises(WeightsError, match="is damaged"):
        read_safetensors(file)
    file.write_bytes(b"<html><body>404 not found</body></html>" * 10)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_safetensors(file)
    with pytest.raises(WeightsError, match="does not exist"):
        read_safetensors(tmp_path / "none.safetensors")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    shards.check_sha256(tmp_path / "x", expected=digest.upper())
    with pytest.raises(WeightsError, match=f"sha256 is {digest}, expected 00ff"):
        shards.check_sha256(tmp_path / "x", expected="00ff")


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_state_dicts(tmp_path, legacy):
    state = {
        "w": torch.randn(3, 4).T,
        "h": torch.randn(5).half(),
        "b": torch.randn(5).bfloat16(),
        "p": torch.nn.Parameter(torch.ones(2)),
    }
    file = tmp_path / "pytorch_model.bin"
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    found = shards.read_checkpoint(tmp_path)
    for name, value in state.items():
        assert found[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(
            found[name].read().astype(np.float32), value.detach().float().numpy()
        )
        assert found[name].dtype == found[name].read().dtype
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="is damaged"):
        shards.read_checkpoint(tmp_path)


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused(tmp_path, capsys):
    torch.save({"w": torch.ones(1), "x": _Evil()}, tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps({"x": _Evil()}, protocol=2))
    for name in ("a.bin", "b.bin"):
        with pytest.raises(WeightsError, match="wants to run code.*refused"):
            shards.read_file(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_a_nested_or_empty_pickle_is_explained(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="'model' is a dict; save the inner state dict"):
        shards.read_file(tmp_path / "a.bin")
    torch.save([torch.ones(1)], tmp_path / "b.pt")
    with pytest.raises(WeightsError, match="holds a list, not a state dict"):
        shards.read_file(tmp_path / "b.pt")
    (tmp_path / "c.ckpt").write_bytes(b"")
    with pytest.raises(WeightsError, match="unknown weight file suffix '.ckpt'"):
        shards.read_file(tmp_path / "c.ckpt")


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_what_is_written(tmp_path, mapped):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "b": np.asarray([1, 2.5], ml_dtypes.bfloat16),
        "c": np.asarray(7, np.int64),
        "d": np.ones((3, 1, 2), np.float16),
        "e": np.zeros((0, 4), np.uint8),
    }
    torch_file.write_torch(
        tmp_path / "x.bin",
        as_tensors(arrays),
        wrap=lambda state: {"dims": {"n": 3}, "state": state},
    )
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:
        assert archive.testzip() is None
    found = torch.load(tmp_path / "x.bin", weights_only=True, mmap=mapped)
    assert found["dims"] == {"n": 3} and list(found["state"]) == list(arrays)
    assert found["state"]["b"].dtype == torch.bfloat16
    ours = torch_file.read_torch_tree(tmp_path / "x.bin")
    for name, array in arrays.items():
        value = found["state"][name]
        assert value.data_ptr() % 64 == 0 or not mapped
        np.testing.assert_array_equal(value.float().numpy(), array.astype(np.float32))
        assert ours["state"][name].read().tobytes() == np.ascontiguousarray(array).tobytes()


def test_what_is_written_is_what_the_library_writes(tmp_path):
    rng = np.random.default_rng(0)
    kinds = ("float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8",
             "uint8", "uint16", "uint32", "uint64", "bool")  # fmt: skip
    arrays = {
        f"{prefix}.{i}": (rng.standard_normal((i % 3 + 1, 2)) * 9).astype(np.dtype(kind))
        for i, kind in enumerate(kinds)
        for prefix in ("z", "a", "\u00e4")
    }
    save_file(arrays, tmp_path / "theirs", metadata={"format": "pt"})
    digest = write_safetensors(tmp_path / "ours", as_tensors(arrays), metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    shards.check_sha256(tmp_path / "theirs", expected=digest)


def test_views_of_one_storage(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"rows": whole[1:3], "columns": whole[:, 2:4], "turned": whole.T}, tmp_path / "x.pt")
    found = torch_file.read_torch(tmp_path / "x.pt")
    np.testing.assert_array_equal(found["rows"].read(), whole[1:3].numpy())
    np.testing.assert_array_equal(found["columns"].read(), whole[:, 2:4].numpy())
    np.testing.assert_array_equal(found["turned"].read(), whole.T.numpy())


def test_an_old_torch_is_not_trusted_with_a_pickle(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(1)}, tmp_path / "x.bin")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(WeightsError, match=r"x.bin .* PyTorch 2.9.1.*CVE-2026-24747.*torch>=2.10"):
        torch_file.read_torch(tmp_path / "x.bin")


def test_a_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    tensors = as_tensors({"w": np.zeros(1000, np.float32)})
    for write in (
        lambda: shards.write_shards(tmp_path, tensors, stem="x", metadata={}),
        lambda: torch_file.write_torch(tmp_path / "x.bin", tensors),
    ):
        with pytest.raises(WeightsError, match="are needed and 0.00 GB are free"):
            write()
    assert not list(tmp_path.iterdir())


def test_shards_follow_their_index(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": np.ones(3)}, tmp_path / "model-00002-of-00002.safetensors")
    placed = {name: f"model-0000{i}-of-00002.safetensors" for i, name in enumerate("ab", 1)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    assert set(shards.read_checkpoint(tmp_path)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": placed | {"c": placed["a"]}}))
    with pytest.raises(WeightsError, match=r"1 tensors of .* are in no shard: \['c'\]"):
        shards.read_checkpoint(tmp_path)
    (tmp_path / placed["b"]).unlink()
    with pytest.raises(WeightsError, match="lacks 1 of 2 shards"):
        shards.read_checkpoint(tmp_path)
    index.unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        shards.read_checkpoint(tmp_path)
