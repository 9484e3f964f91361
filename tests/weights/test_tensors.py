"""Lazy tensors: every way of reading gives the numbers of the whole."""

import itertools

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh
from safetensors.numpy import save_file

from ltu_jax.weights import tensors
from ltu_jax.weights.files.safetensors_file import read_safetensors
from ltu_jax.weights.placement import place
from ltu_jax.weights.tensors import Tensor, array_tensor, cast, describe_casts


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A [7,5,4] tensor in a file, read two rows at a time, and its numbers."""
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 2 * 5 * 4 * 4)
    array = np.random.default_rng(0).standard_normal((7, 5, 4)).astype(np.float32)
    save_file({"before": np.ones(3, np.float32), "x": array}, tmp_path / "x.safetensors")
    return read_safetensors(tmp_path / "x.safetensors")["x"], array


def test_rows_layers_and_parts(stored):
    tensor, array = stored
    np.testing.assert_array_equal(tensor.read(), array)
    np.testing.assert_array_equal(tensor.between(2, 5), array[2:5])
    np.testing.assert_array_equal(tensor.layer(6), array[6])
    parts = list(tensor.blocks())
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), array)
    np.testing.assert_array_equal(array_tensor(array).layer(3), array[3])
    whole = Tensor(shape=array.shape, dtype=array.dtype, read=lambda: array)
    assert len(list(whole.blocks())) == 1
    np.testing.assert_array_equal(whole.between(1, 3), array[1:3])


def test_every_region(stored):
    tensor, array = stored
    cuts = [(None, None), (0, 4), (3, None), (2, 2)]
    for rows, columns in itertools.product(cuts, cuts):
        index = (slice(*rows), slice(*columns), slice(1, 3))
        found = tensor.region(index, np.float32)
        np.testing.assert_array_equal(found, array[index])
    assert tensor.region((slice(None),) * 3, ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
    scalar = array_tensor(np.float32(3))
    assert scalar.region((), np.float32) == 3


def test_casts_are_lazy_and_told(stored):
    tensor, array = stored
    half = cast({"x": tensor}, np.dtype(np.float16))["x"]
    assert half.dtype == np.float16 and half.nbytes == array.size * 2
    np.testing.assert_array_equal(half.layer(2), array[2].astype(np.float16))
    bf16, f16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
    assert describe_casts({"x": tensor, "y": half}, f16) == (
        "1 tensors rounded from float32 to float16"
    )
    assert "rounded from float16 to bfloat16" in describe_casts({"y": half}, bf16)
    assert describe_casts({"y": half}, np.dtype(np.float32)) == ""
    assert describe_casts({"x": tensor}, None) == ""


def test_parts_go_straight_to_their_devices(stored):
    tensor, array = stored
    read: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> np.ndarray:
        read.append((start, stop))
        return tensor.rows(start, stop)

    def refuse() -> np.ndarray:
        raise AssertionError("the whole tensor was read")

    watched = Tensor(shape=(7, 5, 4), dtype=tensor.dtype, read=refuse, rows=rows)
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(1, 2, 2), ("data", "fsdp", "tensor"))
    with pytest.raises(ValueError, match="5"):  # 5 does not divide over 2 devices: said, not padded
        place({"llama.layers.mlp.up_proj.kernel": watched}, mesh=mesh, dtypes={
            "llama.layers.mlp.up_proj.kernel": np.float32})  # fmt: skip
    even = array[:, :4]
    watched = Tensor(
        shape=even.shape, dtype=even.dtype, read=refuse, rows=lambda a, b: rows(a, b)[:, :4]
    )
    path = "llama.layers.mlp.up_proj.kernel"
    placed = place({path: watched}, mesh=mesh, dtypes={path: np.float32})[path]
    np.testing.assert_array_equal(np.asarray(placed), even)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(7, 2, 2)}
    assert max(stop - start for start, stop in read) <= 2
