"""The same training on one device and on eight: loss and parameters agree."""

import jax
import numpy as np
import pytest

from ltu_jax.core.sharding import MeshConfig
from ltu_jax.core.trees import count
from ltu_jax.preprocessing.text import IGNORE
from tests.support.golden_model import STAGE3, make_trainer, optimizer_config
from tests.support.targets import dense_targets


@pytest.fixture(scope="module")
def batches(tiny):
    rng = np.random.default_rng(0)
    rows = {name: np.resize(leaf, (8, *leaf.shape[1:])) for name, leaf in tiny.batch.items()}
    made = []
    for _ in range(3):
        noise = rng.normal(size=rows["features"].shape).astype(np.float32)
        made.append({**rows, "features": rows["features"] + 0.1 * noise})
    return made


def train(tiny, batches, *, mesh, accumulation=1, loss_mean="micro"):
    # With eps = 1e-8 AdamW makes a full step of a gradient that is float32 noise; a large eps
    # keeps the comparison about the mesh.
    config = optimizer_config(
        learning_rate=1e-2,
        warmup_steps=0,
        accumulation=accumulation,
        eps=1e-2,
        schedule="cosine",
        loss_mean=loss_mean,
    )
    trainer = make_trainer(tiny, rules=STAGE3, config=config, steps=10, mesh=mesh)
    return trainer, *trainer.run(batches)


@pytest.fixture(scope="module")
def alone(tiny, batches):
    return {
        accumulation: train(
            tiny, batches, mesh=MeshConfig(data=1, fsdp=1, tensor=1), accumulation=accumulation
        )
        for accumulation in (1, 2)
    }


@pytest.mark.parametrize(
    "sizes, accumulation", [((8, 1, 1), 1), ((2, 2, 2), 1), ((1, 4, 2), 1), ((4, 1, 1), 2)]
)
def test_a_mesh_changes_nothing(tiny, batches, alone, sizes, accumulation):
    data, fsdp, tensor = sizes
    mesh = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    trainer, state, rows = train(tiny, batches, mesh=mesh, accumulation=accumulation)
    _, expected_state, expected_rows = alone[accumulation]
    for row, expected in zip(rows, expected_rows, strict=True):
        np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-5)
    assert len(next(iter(state.trainable.values())).sharding.device_set) == data * fsdp * tensor
    for path, leaf in expected_state.trainable.items():
        found, expected = np.asarray(state.trainable[path]), np.asarray(leaf)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=path)
    kernel = trainer.frozen["llama.layers.mlp.gate_proj.kernel"]
    shard = kernel.addressable_shards[0].data.shape
    assert shard == (kernel.shape[0], kernel.shape[1] // fsdp, kernel.shape[2] // tensor)


@pytest.fixture(scope="module")
def uneven(batches):
    """Batches whose micro-batches have unlike numbers of targets."""
    made = []
    for batch in batches:
        labels = batch["labels"].copy()
        labels[1::2, : labels.shape[1] * 2 // 3] = IGNORE
        made.append({**batch, "labels": labels})
    return made


@pytest.fixture(scope="module")
def whole(tiny, uneven):
    """State and metrics where each uneven batch is one micro-batch on one device."""
    one = MeshConfig(data=1, fsdp=1, tensor=1)
    _, state, rows = train(tiny, uneven, mesh=one)
    _, _, official = train(tiny, uneven, mesh=one, accumulation=2)
    assert abs(official[0]["loss"] - rows[0]["loss"]) > 1e-3  # the mean of means is another number
    return state, rows


@pytest.mark.parametrize("sizes, accumulation", [((1, 1, 1), 4), ((4, 1, 1), 2), ((2, 2, 2), 2)])
def test_a_mean_of_tokens_does_not_depend_on_micro_batches(
    tiny, uneven, whole, sizes, accumulation
):
    expected_state, expected_rows = whole
    mesh = MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    _, state, rows = train(tiny, uneven, mesh=mesh, accumulation=accumulation, loss_mean="token")
    for row, expected in zip(rows, expected_rows, strict=True):
        for name in ("loss", "token_accuracy", "grad_norm"):
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-5)
    for path, leaf in expected_state.trainable.items():
        found = np.asarray(state.trainable[path])
        np.testing.assert_allclose(found, np.asarray(leaf), atol=1e-5, rtol=0, err_msg=path)


def test_optimiser_holds_trainable_parameters_only(tiny):
    trainer = make_trainer(tiny, rules=STAGE3, config=optimizer_config(), steps=200)
    adam = next(part for part in trainer.state.opt_state if hasattr(part, "mu"))
    assert set(adam.mu) == set(adam.nu) == set(trainer.state.trainable)
    assert count(trainer.state.trainable) == tiny.info["n_trainable_stage3"]


@pytest.mark.parametrize("rules, made", [(STAGE3, False), (((r".+", True),), True)])
def test_frozen_parameters_are_not_differentiated(tiny, rules, made):
    """The step computes the gradient of a base matrix only if the rules train it."""
    trainer = make_trainer(tiny, rules=rules, config=optimizer_config(), steps=200)
    batch = dense_targets(tiny.batch)
    jaxpr = jax.make_jaxpr(trainer.step)(trainer.state, trainer.frozen, batch, jax.random.key(0))
    # Products with the shape of the matrix itself occur in its gradient and nowhere else.
    _, size_in, size_out = tiny.params["llama.layers.mlp.gate_proj.kernel"].shape
    products = [
        f"f32[{a},{b}] = dot_general" for a, b in ((size_in, size_out), (size_out, size_in))
    ]
    assert any(product in str(jaxpr) for product in products) == made
