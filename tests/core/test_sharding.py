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
    ("sizes", "message"),
    [
        (
            (3, 2, 1),
            "mesh data=3, fsdp=2, tensor=1 needs 6 devices, 8 are present; the nearest meshes that "
            "fit: (data=4, fsdp=2, tensor=1) or (data=2, fsdp=4, tensor=1) or "
            "(data=2, fsdp=2, tensor=2)",
        ),
        (
            (4, 2, 2),  # more than there are
            "needs 16 devices, 8 are present; the nearest meshes that fit: "
            "(data=4, fsdp=2, tensor=1) or (data=4, fsdp=1, tensor=2) or "
            "(data=2, fsdp=2, tensor=2)",
        ),
        (
            (-1, 3, 1),
            "mesh data=-1, fsdp=3, tensor=1 needs a multiple of 3 devices, 8 are present; the "
            "nearest meshes that fit: (data=2, fsdp=4, tensor=1)",
        ),
        ((-1, -1, 1), "at most one may be -1"),
        ((0, 1, 1), "sizes must be positive"),
    ],
)
def test_a_mesh_that_does_not_fit_names_the_nearest_that_do(sizes, message):
    data, fsdp, tensor = sizes
    with pytest.raises(UserError) as error:
        sharding.make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
    assert message in str(error.value)


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
    with pytest.raises(
        UserError,
        match=r"llama\.lm_head\.kernel: its width dimension of 12 does not "
        r"divide by the mesh axis fsdp=8; the nearest sizes that do: 6 and 12",
    ):
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


@pytest.mark.parametrize(
    ("rows", "accumulation", "message"),
    [
        (12, 1, "batch of 12 rows does not divide over data x fsdp = 8 devices; the nearest "
         "data.rows_per_batch that do: 8 and 16"),
        (3, 1, "the nearest data.rows_per_batch that does: 8"),
        (24, 2, "data x fsdp = 8 devices x optimizer.accumulation = 2; the nearest "
         "data.rows_per_batch that do: 16 and 32"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_divide_over_devices_and_micro_batches(rows, accumulation, message):
    mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2, tensor=1))
    with pytest.raises(UserError) as error:
        sharding.check_rows(rows, mesh=mesh, accumulation=accumulation)
    assert message in str(error.value)


def test_audio_parts_lie_over_every_axis_and_come_back():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    layout, x = sharding.audio_layout(mesh), np.arange(16.0).reshape(8, 2)
    everywhere = jax.jit(layout.spread)(x)
    assert everywhere.addressable_shards[0].data.shape == (1, 2)
    back = jax.jit(layout.gather)(everywhere)
    assert back.addressable_shards[0].data.shape == (2, 2)
    np.testing.assert_array_equal(np.asarray(back), x)
    assert jax.jit(layout.spread)(x[:4]).sharding.is_fully_replicated  # 4 rows, 8 devices
