"""Schedules, groups and clipping against closed forms and live PyTorch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ltu_jax.core.errors import UserError
from ltu_jax.training.optimizer import (
    OptimizerConfig,
    clip_like_torch,
    learning_rate,
    make_optimizer,
)
from tests.support.golden_model import optimizer_config

pytestmark = pytest.mark.optimised


def test_linear_schedule_starts_and_ends_at_zero():
    rate = learning_rate(optimizer_config(warmup_steps=10), steps=50)
    assert float(rate(0)) == 0.0 and float(rate(50)) == 0.0
    assert float(rate(10)) == pytest.approx(2e-4)
    assert float(rate(30)) == pytest.approx(1e-4)


def test_cosine_schedule_is_half_a_wave_after_warmup():
    rate = learning_rate(optimizer_config(warmup_steps=10, schedule="cosine"), steps=50)
    for step in range(10, 51):
        expected = 2e-4 * 0.5 * (1 + np.cos(np.pi * (step - 10) / 40))
        assert float(rate(step)) == pytest.approx(expected, abs=1e-10)
    assert float(rate(5)) == pytest.approx(1e-4)


def test_constant_schedule_stays_after_warmup():
    rate = learning_rate(optimizer_config(warmup_steps=4, schedule="constant"), steps=6)
    assert [float(rate(step)) for step in (0, 2, 4, 6)] == pytest.approx([0, 1e-4, 2e-4, 2e-4])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_no_schedule_is_ever_negative(schedule, warmup):
    rate = learning_rate(optimizer_config(warmup_steps=warmup, schedule=schedule), steps=50)
    rates = np.asarray(rate(np.arange(-120, 200)))
    assert (rates >= 0).all() and rates.max() == pytest.approx(2e-4)
    assert (rates[:120] == float(rate(0))).all()
    if schedule != "constant":
        assert (rates[170:] == 0).all()


def test_more_warmup_than_steps_is_refused():
    with pytest.raises(UserError, match="warmup_steps is 100 but the run has 50 steps"):
        learning_rate(optimizer_config(), steps=50)


@pytest.mark.parametrize(
    "changes, names",
    [
        (dict(learning_rate=float("inf")), ["learning_rate", "inf"]),
        (dict(learning_rate=-1e-4), ["learning_rate", "-0.0001"]),
        (dict(eps=float("nan")), ["eps", "nan"]),
        (dict(b1=1.0), ["b1", "1.0"]),
        (dict(b2=-0.1), ["b2", "-0.1"]),
        (dict(weight_decay=-0.1), ["weight_decay", "-0.1"]),
        (dict(accumulation=0), ["accumulation", "0"]),
        (dict(warmup_steps=-5), ["warmup_steps", "-5"]),
        (dict(group_multipliers=((r"tltr\..+", -1.0),)), ["group_multipliers", "tltr", "-1.0"]),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named_alone(changes, names):
    with pytest.raises(UserError) as error:
        optimizer_config(**changes)
    (key,) = changes
    assert all(name in str(error.value) for name in names)
    others = {field.name for field in dataclasses.fields(OptimizerConfig)} - {key}
    assert not [name for name in others if f"optimizer.{name} " in str(error.value)]


def test_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="optimizer.schedule is 'square'; use one of linear"):
        optimizer_config(schedule="square")
    with pytest.raises(UserError, match="optimizer.loss_mean is 'row'; use one of micro, token"):
        optimizer_config(loss_mean="row")


@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.0, 30.0])
def test_clipping_is_that_of_torch(scale):
    rng = np.random.default_rng(0)
    tree = {name: rng.normal(size=shape).astype(np.float32) * scale for name, shape in
            {"a": (3, 4), "b": (5,)}.items()}  # fmt: skip
    leaves = [torch.nn.Parameter(torch.zeros(leaf.shape)) for leaf in tree.values()]
    for leaf, gradient in zip(leaves, tree.values(), strict=True):
        leaf.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)
    clip = clip_like_torch(1.0)
    clipped, _ = clip.update(tree, clip.init(tree))
    for leaf, found in zip(leaves, clipped.values(), strict=True):
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-6)


def test_groups_and_decay_are_those_of_torch_adamw():
    rng = np.random.default_rng(1)
    start = {"slow.kernel": rng.normal(size=(4, 3)), "fast.kernel": rng.normal(size=(6,))}
    start = {path: leaf.astype(np.float32) for path, leaf in start.items()}
    config = optimizer_config(
        learning_rate=1e-2,
        warmup_steps=0,
        schedule="constant",
        weight_decay=0.1,
        clip_norm=1e6,
        group_multipliers=((r"slow\..+", 0.1), (r"fast\..+", 1.0)),
    )
    tx = make_optimizer(config, paths=start, steps=10)
    params, state = {path: jnp.asarray(leaf) for path, leaf in start.items()}, None
    state = tx.init(params)
    leaves = {path: torch.nn.Parameter(torch.tensor(leaf)) for path, leaf in start.items()}
    groups = [
        {"params": [leaves["slow.kernel"]], "lr": 1e-3},
        {"params": [leaves["fast.kernel"]], "lr": 1e-2},
    ]
    theirs = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    for _ in range(4):
        gradients = {path: rng.normal(size=leaf.shape).astype(np.float32)
                     for path, leaf in start.items()}  # fmt: skip
        updates, state = tx.update(gradients, state, params)
        params = {path: params[path] + updates[path] for path in params}
        for path, leaf in leaves.items():
            leaf.grad = torch.tensor(gradients[path])
        theirs.step()
    for path, leaf in leaves.items():
        np.testing.assert_allclose(params[path], leaf.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_group_rule_without_parameter_is_refused():
    config = optimizer_config(group_multipliers=((r"a", 1.0), (r"tltr\..+", 0.1)))
    with pytest.raises(ValueError, match="match no parameter"):
        make_optimizer(config, paths=["a"], steps=200)
