"""What config.compute makes of a stage: kinds, placement, refusals, and int8's loss."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import stage3
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.training import losses, program
from ltu_jax.training.program import is_adapter
from ltu_jax.training.stage_config import stage_settings
from ltu_jax.weights.placement import place_language_model
from ltu_jax.weights.tensors import as_tensors
from tests.support.golden_model import load_tiny
from tests.support.targets import dense_targets

LLAMA = dict(
    vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6,
    rope_theta=10000.0, rope_scaling=None, tie_word_embeddings=True, attention_bias=False,
)  # fmt: skip


def settings_of(llama=LLAMA, **compute):
    config = stage3.get_config("mini")
    config.model.llama = ConfigDict(llama)
    config.compute.update(compute)
    return stage_settings(json.loads(json.dumps(config.to_dict())))


def made(settings, mesh):
    """Shapes of the frozen language model, and random weights for it."""
    given = program.model_options(settings, mesh=mesh)
    shapes = LTUAS.functional(settings.model.ltu_as(), **given).shapes
    rng = np.random.default_rng(0)
    plain = LTUAS.functional(settings.model.ltu_as()).shapes
    weights = {
        path: rng.standard_normal(leaf.shape, dtype=np.float32)
        for path, leaf in plain.items()
        if not is_adapter(path)
    }
    return {path: leaf for path, leaf in shapes.items() if not is_adapter(path)}, weights


def place(weights, shapes, *, settings, mesh):
    compute = settings.compute
    return place_language_model(
        as_tensors(weights),
        shapes,
        base_dtype=compute.base_dtype,
        dtype=compute.dtype,
        mesh=mesh,
        subject="weights",
    )


@pytest.mark.parametrize("base", ["float32", "bfloat16", "int8"])
def test_the_base_lies_on_a_mesh_as_configured(base):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
    settings = settings_of(base_dtype=base, dtype="bfloat16")
    shapes, weights = made(settings, mesh)
    placed = place(weights, shapes, settings=settings, mesh=mesh)
    assert placed.keys() == shapes.keys()
    for path, leaf in placed.items():
        whole = np.asarray(leaf.astype(jnp.float32))
        if path.endswith("_scale"):
            expected = np.abs(weights[path.removesuffix("_scale")]).max(1) / 127.5
            np.testing.assert_allclose(whole, expected, rtol=1e-6)
            continue
        if path + "_scale" in placed:
            assert leaf.dtype == jnp.int8
            scale = np.asarray(placed[path + "_scale"])[:, None]
            assert (np.abs(whole * scale - weights[path]) <= 0.5001 * scale).all()
            continue
        assert leaf.dtype == jnp.dtype("bfloat16" if base == "int8" else base)
        expected = weights[path].astype(leaf.dtype).astype(np.float32)
        np.testing.assert_array_equal(whole, expected)
    kernel = placed["llama.layers.mlp.gate_proj.kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 8, 12)


def test_weights_of_another_model_are_named():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    settings = settings_of(base_dtype="int8")
    shapes, weights = made(settings, mesh)
    del weights["llama.norm.scale"]
    with pytest.raises(UserError, match="llama.norm.scale"):
        place(weights, shapes, settings=settings, mesh=mesh)


def test_int8_is_not_trained():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    settings = settings_of(base_dtype="int8")
    shapes = LTUAS.functional(settings.model.ltu_as(), int8_base=True).shapes
    program.check_trainable(settings, shapes)
    wrong = dataclasses.replace(settings, trainable=((r".+", True),))
    with pytest.raises(UserError, match="base_dtype is 'int8' but stage3 trains llama.layers.mlp"):
        program.check_trainable(wrong, shapes)
    assert program.model_options(settings, mesh=mesh)["int8_base"]


@pytest.mark.parametrize(
    "compute, message",
    [
        (dict(base_dtype="int4"), "base_dtype is 'int4'; use float32, bfloat16, float16, int8"),
        (
            dict(attention="flash"),
            "attention is 'flash'; use blocks, xla, dot_product, cudnn, splash",
        ),
        (dict(loss_chunk=-1), "loss_chunk is -1; use 0 or more"),
    ],
)
def test_wrong_values_are_named(compute, message):
    with pytest.raises(UserError, match=message):
        settings_of(**compute)


def test_a_backend_for_other_devices_is_refused():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    with pytest.raises(UserError, match="'splash', which needs tpu devices; these are cpu"):
        program.model_options(settings_of(attention="splash"), mesh=mesh)


def test_int8_loss_is_within_one_percent_on_the_golden_batch(golden):
    """The gate of the issue on the tiny official model; benchmarks/int8_gate.py is the long one."""
    tiny = load_tiny(golden / "ltu_as_tiny_a", with_lora=True)
    batch = dense_targets(tiny.batch)
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    settings = settings_of(
        llama=dataclasses.asdict(tiny.fns.config.llama), base_dtype="int8", dtype="float32"
    )

    def loss(fns, params):
        loss_fn = losses.language_loss(fns, features=lambda frozen, batch: batch["features"])
        return float(jax.jit(lambda p: loss_fn(p, {}, batch, None)[0])(params))

    small = LTUAS.functional(tiny.fns.config, int8_base=True)
    base = {path: leaf for path, leaf in small.shapes.items() if not is_adapter(path)}
    weights = {path: leaf for path, leaf in tiny.params.items() if not is_adapter(path)}
    placed = place(weights, base, settings=settings, mesh=mesh)
    adapter = {path: leaf for path, leaf in tiny.params.items() if is_adapter(path)}
    exact = loss(tiny.fns, tiny.params)
    assert abs(exact - tiny.info["loss_stage3"]) < 1e-5
    found = loss(small, {**adapter, **placed})
    assert 0 < abs(found - exact) < 0.01 * exact
