"""Readers of tensor files against the libraries that write them."""

import json
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ltu_jax.weights import io
from ltu_jax.weights.io import WeightsError


def test_safetensors_as_the_library_writes_them(tmp_path):
    arrays = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.ones((2, 1, 2), np.float16),
        "bf16": np.asarray([1.0, 3.0], ml_dtypes.bfloat16),
        "i64": np.asarray(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = io.read_safetensors(tmp_path / "x.safetensors")
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
            io.read_safetensors(file)
    file.write_bytes(content + b"more")
    with pytest.raises(WeightsError, match="is damaged"):
        io.read_safetensors(file)
    file.write_bytes(b"<html><body>404 not found</body></html>" * 10)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        io.read_safetensors(file)
    with pytest.raises(WeightsError, match="does not exist"):
        io.read_safetensors(tmp_path / "none.safetensors")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    io.check_sha256(tmp_path / "x", expected=digest.upper())
    with pytest.raises(WeightsError, match=f"sha256 is {digest}, expected 00ff"):
        io.check_sha256(tmp_path / "x", expected="00ff")


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
    found = io.read_checkpoint(tmp_path)
    for name, value in state.items():
        assert found[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(
            found[name].read().astype(np.float32), value.detach().float().numpy()
        )
        assert found[name].dtype == found[name].read().dtype
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="is damaged"):
        io.read_checkpoint(tmp_path)


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused(tmp_path, capsys):
    torch.save({"w": torch.ones(1), "x": _Evil()}, tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps({"x": _Evil()}, protocol=2))
    for name in ("a.bin", "b.bin"):
        with pytest.raises(WeightsError, match="wants to run code.*refused"):
            io.read_file(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_a_nested_or_empty_pickle_is_explained(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="'model' is a dict; save the inner state dict"):
        io.read_file(tmp_path / "a.bin")
    torch.save([torch.ones(1)], tmp_path / "b.pt")
    with pytest.raises(WeightsError, match="holds a list, not a state dict"):
        io.read_file(tmp_path / "b.pt")
    (tmp_path / "c.ckpt").write_bytes(b"")
    with pytest.raises(WeightsError, match="unknown weight file suffix '.ckpt'"):
        io.read_file(tmp_path / "c.ckpt")


def test_torch_writing_is_bit_identical(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "b": np.asarray([1, 2.5], ml_dtypes.bfloat16),
    }
    io.write_torch(tmp_path / "x.bin", arrays.items())
    found = torch.load(tmp_path / "x.bin", weights_only=True)
    assert found["b"].dtype == torch.bfloat16
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].float().numpy(), array.astype(np.float32))


def test_shards_follow_their_index(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": np.ones(3)}, tmp_path / "model-00002-of-00002.safetensors")
    placed = {name: f"model-0000{i}-of-00002.safetensors" for i, name in enumerate("ab", 1)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    assert set(io.read_checkpoint(tmp_path)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": placed | {"c": placed["a"]}}))
    with pytest.raises(WeightsError, match=r"1 tensors of .* are in no shard: \['c'\]"):
        io.read_checkpoint(tmp_path)
    (tmp_path / placed["b"]).unlink()
    with pytest.raises(WeightsError, match="lacks 1 of 2 shards"):
        io.read_checkpoint(tmp_path)
    index.unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        io.read_checkpoint(tmp_path)
