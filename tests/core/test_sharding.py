"""Meshes, parameter layouts and their errors, on 8 fake devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ltu_jax.core import sharding
from ltu_jax.core.distributed import host_batch_to_global
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig


def test_minus_one_takes_what_is_left():
    mesh = sharding.make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3, fsdp=2, tensor=1), r"needs 6 devices, 8 are present; data=4 would fit"),
        (MeshConfig(data=-1, fsdp=3, tensor=1), "needs a multiple of 3 devices, 8 are present"),
        (MeshConfig(data=-1, fsdp=-1, tensor=1), "at most one may be -1"),
        (MeshConfig(data=0, fsdp=1, tensor=1), "sizes must be positive"),
    ],
)
def test_a_mesh_that_does_not_fit_names_the_numbers(config, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(config)


def test_llama_parameters_are_laid_on_fsdp_and_tensor():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shapes = {
        "llama.embed_tokens.embedding": np.zeros((32, 8)),
        "llama.layers.self_attn.q_proj.kernel": np.zeros((3, 8, 16)),
        "llama.layers.mlp.down_proj.kernel": np.zeros((3, 24, 8)),
        "audio_proj.kernel": np.zeros((5, 8)),
    }
    assert sharding.param_specs(shapes, mesh) == {
        "llama.embed_tokens.embedding": PartitionSpec("tensor", "fsdp"),
        "llama.layers.self_attn.q_proj.kernel": PartitionSpec(None, "fsdp", "tensor"),
        "llama.layers.mlp.down_proj.kernel": PartitionSpec(None, "tensor", "fsdp"),
        "audio_proj.kernel": PartitionSpec(),
    }
    placed = jax.device_put(
        np.zeros((3, 8, 16)),
        sharding.param_shardings(mesh, shapes)["llama.layers.self_attn.q_proj.kernel"],
    )
    assert placed.addressable_shards[0].data.shape == (3, 4, 8)


def test_a_dimension_that_does_not_divide_is_named():
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=8, tensor=1))
    with pytest.raises(UserError, match=r"llama\.lm_head\.kernel: its width dimension of 12"):
        sharding.param_specs({"llama.lm_head.kernel": np.zeros((12, 16))}, mesh)


def test_an_unknown_parameter_is_named():
    mesh = sharding.make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    with pytest.raises(ValueError, match=r"no rule matches 1 parameters: llama\.extra"):
        sharding.param_specs({"llama.extra": np.zeros(2)}, mesh)


def test_host_batch_becomes_global_and_keeps_its_rows():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rows = np.arange(24).reshape(8, 3)
    batch = host_batch_to_global({"ids": rows}, mesh)
    assert batch["ids"].sharding.spec == PartitionSpec(("data", "fsdp"))
    np.testing.assert_array_equal(np.asarray(batch["ids"]), rows)


def test_a_batch_that_does_not_divide_names_the_nearest_sizes():
    mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2, tensor=1))
    with pytest.raises(UserError, match=r"batch of 12 rows .* = 8 devices; .* 8 and 16"):
        host_batch_to_global({"ids": np.zeros((12, 3))}, mesh)
