"""Optimiser steps of the official PyTorch trainer, step by step (facts section 3 tolerances).

Parameters are compared where the gradient decides how they move, all steps with float64 ones; see
`conditioning.py`.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conditioning import adam, allowed, check_steps, decisive

from configs import stage1, stage2, stage3
from ltu_jax.core.config import read
from ltu_jax.models.text_batch import ROW_WEIGHTS, with_targets
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.optimizer import OptimizerConfig, learning_rate
from ltu_jax.training.state import split_trainable
from tests.support.golden_model import STAGE1, STAGE3, make_trainer, optimizer_config
from tests.support.official_names import from_official
from tests.support.targets import dense_targets


def compare(found, truth, *, atol):
    assert found.keys() == truth.keys()
    for path, expected in truth.items():
        np.testing.assert_allclose(
            np.asarray(found[path]), expected, atol=atol, rtol=0, err_msg=path
        )


def compare_gradients(found, truth):
    assert found.keys() == truth.keys()
    for path, expected in truth.items():
        limit = allowed(expected)
        np.testing.assert_allclose(found[path], expected, atol=limit, rtol=0, err_msg=path)


def compare_decisive(run, truth, *, gradients, atol, share):
    """Parameters after the last step, where the official gradient decides; `share` of all do."""
    found = run.states[-1].trainable
    moved = sum(run.rates)
    masks = decisive(gradients, config=run.config, moved=moved, atol=atol)
    assert found.keys() == truth.keys() == masks.keys()
    for path, expected in truth.items():
        mask = masks[path]
        assert mask.any(), path
        np.testing.assert_allclose(
            found[path][mask], expected[mask], atol=atol, rtol=0, err_msg=path
        )
    compared = sum(mask.sum() for mask in masks.values())
    assert compared >= share * sum(mask.size for mask in masks.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenRun:
    """States on the host, the first one before the first step; norms before clipping."""

    config: OptimizerConfig
    states: list
    rates: list[float]
    norms: list[float]

    def first_gradients(self):
        """Before clipping, from the first moment."""
        scale = max(1.0, (self.norms[0] + 1e-6) / self.config.clip_norm)
        moments = adam(self.states[1]).mu
        return {path: m / (1 - self.config.b1) * scale for path, m in moments.items()}


def copied(state):
    """On the host; a view of a buffer that is given away would change."""
    return jax.tree.map(np.array, jax.device_get(state))


def run_golden(tiny, name, *, rules, accumulation=1, batch=None, steps, logged=1):
    """Train as `config.json` says about the golden run `name`; compare losses, norms and rates.

    Each step is compared with one in float64. The official log has `logged` losses a step.
    """
    told = tiny.info[name]
    args = told["args"]
    config = optimizer_config(
        learning_rate=args["learning_rate"],
        warmup_steps=args["warmup_steps"],
        accumulation=accumulation,
    )
    trainer = make_trainer(tiny, rules=rules, config=config, steps=args["max_steps"])
    states, rows = [copied(trainer.state)], []
    for _ in range(steps):
        state, (row,) = trainer.run([batch or tiny.batch])
        trainer = dataclasses.replace(trainer, state=state)
        states.append(copied(state))
        rows.append(row)
    rate = learning_rate(config, steps=args["max_steps"])
    for step in range(steps):
        # The official log of an accumulated run holds micro-batch losses already divided.
        loss = sum(told["loss"][step * logged : (step + 1) * logged])
        np.testing.assert_allclose(rows[step]["loss"], loss, atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(rows[step]["grad_norm"], told["grad_norm"][step], rtol=1e-4)
        np.testing.assert_allclose(float(rate(step)), told["lr_used"][step], rtol=1e-6)
    rates = [float(rate(step)) for step in range(steps)]
    check_steps(states, config=config, rates=rates)
    norms = [row["grad_norm"] for row in rows]
    return GoldenRun(config=config, states=states, rates=rates, norms=norms)


@pytest.mark.parametrize("dense", [True, False])
def test_loss_and_gradients_of_stage_3(tiny, dense):
    trainable, frozen = split_trainable(tiny.params, STAGE3)
    loss_fn = losses.language_loss(tiny.fns, features=lambda frozen, batch: batch["features"])
    batch = (dense_targets if dense else with_targets)(tiny.batch)
    grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, _), grads = grad_fn(trainable, frozen, batch, None)
    np.testing.assert_allclose(float(loss), tiny.info["loss_stage3"], atol=1e-5)
    compare_gradients(grads, tiny.truth("grads_stage3_all.npz"))


def test_the_first_step_moves_nothing(tiny):
    run = run_golden(tiny, "adamw_official", rules=STAGE3, steps=1)
    truth = tiny.truth("adamw_official_step1.npz")
    compare(run.states[1].trainable, truth, atol=0)
    assert int(run.states[1].step) == 1


@pytest.mark.optimised
def test_three_official_steps_and_their_moments(tiny):
    run = run_golden(tiny, "adamw_official", rules=STAGE3, steps=3)
    gradients = tiny.truth("grads_stage3_all.npz")
    compare_gradients(run.first_gradients(), gradients)
    truth = tiny.truth("adamw_official_step3.npz")
    compare_decisive(run, truth, gradients=gradients, atol=5e-7, share=0.98)
    with np.load(tiny.folder / "adamw_official_moments_step3.npz") as data:
        moments = {kind: {} for kind in "mv"}
        for name in data.files:
            moments[name[0]][name[2:]] = data[name]
    compare(adam(run.states[3]).mu, from_official(moments["m"]), atol=1e-7)
    compare(adam(run.states[3]).nu, from_official(moments["v"]), atol=1e-9)


def test_three_strong_steps(tiny):
    run = run_golden(tiny, "adamw_strong", rules=STAGE3, steps=3)
    truth, gradients = tiny.truth("adamw_strong_step3.npz"), tiny.truth("grads_stage3_all.npz")
    compare_decisive(run, truth, gradients=gradients, atol=1e-4, share=0.85)


@pytest.mark.parametrize("by_weights", [False, True], ids=["accumulated", "by_weights"])
def test_accumulation_is_the_mean_of_micro_batch_means(tiny, by_weights):
    # Micro-batches are example 0 alone and examples 1 and 2: a row without targets evens them out.
    # Rows 0, 2 make the first micro-batch of two and rows 1, 3 the second.
    rows = {name: leaf[[0, 1, 0, 2]] for name, leaf in tiny.batch.items()}
    rows["labels"] = rows["labels"].copy()
    rows["labels"][2] = IGNORE
    if by_weights:  # as `data.micro_rows` has it, whatever the step accumulates
        targets = (rows["labels"][:, 1:] != IGNORE).sum(axis=1)
        counts = targets[[0, 1]] + targets[[2, 3]]
        rows[ROW_WEIGHTS] = np.float32(1 / (2 * counts[[0, 1, 0, 1]]))
    run = run_golden(
        tiny,
        "adamw_accum2",
        rules=STAGE3,
        accumulation=1 if by_weights else 2,
        batch=rows,
        steps=2,
        logged=2,
    )
    gradients = tiny.truth("grads_accum2.npz")
    compare_gradients(run.first_gradients(), gradients)
    truth = tiny.truth("adamw_accum2_step2.npz")
    compare_decisive(run, truth, gradients=gradients, atol=1e-4, share=0.84)


def test_three_steps_of_stage_1_train_the_projection_alone(tiny_stage1):
    run = run_golden(tiny_stage1, "stage1_adamw", rules=STAGE1, steps=3)
    assert set(run.states[3].trainable) == {"audio_proj.kernel", "audio_proj.bias"}
    with np.load(tiny_stage1.folder / "stage1_proj.npz") as data:
        named = {name.removeprefix("grad."): data[name] for name in data.files if "grad." in name}
    gradients = from_official(named)
    compare_gradients(run.first_gradients(), gradients)
    truth = tiny_stage1.truth("stage1_adamw_step3.npz")
    compare_decisive(run, truth, gradients=gradients, atol=5e-7, share=0.9)


def test_released_schedules_are_those_of_the_official_logs(golden):
    runs = json.loads((golden / "lr_schedule_official_logs.json").read_text())["runs"]
    files = {"stage1_proj_cla": stage1, "stage2_all_cla": stage2, "stage3_all_mix_v1": stage3,
             "stage3_all_mix_v2": stage3}  # fmt: skip
    for run in runs:
        released = files[run["stage"]].get_config("released").optimizer.to_dict()
        config = read(OptimizerConfig, released, where="optimizer")
        assert (config.learning_rate, config.warmup_steps) == (run["base_lr"], run["warmup_steps"])
        rate = learning_rate(config, steps=run["max_steps"])
        for row in run["logged"]:
            # Logged after the scheduler moved on: the rate of the next step, whose number from 0
            # is the logged number from 1.
            np.testing.assert_allclose(
                float(rate(row["step"])), row["learning_rate"], rtol=2e-5, err_msg=str(row)
            )
