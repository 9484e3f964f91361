"""Optimiser steps of the official PyTorch trainer, step by step (facts section 3 tolerances)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest_training import STAGE1, STAGE3, make_trainer, optimizer_config

from configs import stage1, stage2, stage3
from ltu_jax.stages.settings import build
from ltu_jax.training import losses
from ltu_jax.training.optimizer import OptimizerConfig, learning_rate
from ltu_jax.training.state import split_trainable


def compare(found, truth, *, atol):
    assert found.keys() == truth.keys()
    for path, expected in truth.items():
        np.testing.assert_allclose(np.asarray(found[path]), expected, atol=atol, rtol=0)


def run_golden(tiny, name, *, rules, accumulation=1, batch=None, steps):
    """Train as `config.json` says about the golden run `name`; compare losses, norms and rates."""
    told = tiny.info[name]
    args = told["args"]
    config = optimizer_config(
        learning_rate=args["learning_rate"],
        warmup_steps=args["warmup_steps"],
        accumulation=accumulation,
    )
    trainer = make_trainer(tiny, rules=rules, config=config, steps=args["max_steps"])
    states = [trainer.state]
    state, rows = trainer.run([batch or tiny.batch] * steps)
    rate = learning_rate(config, steps=args["max_steps"])
    for step in range(steps):
        logged = told["loss"][step * accumulation : (step + 1) * accumulation]
        # The official log of an accumulated run holds micro-batch losses already divided.
        np.testing.assert_allclose(rows[step]["loss"], sum(logged), atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(rows[step]["grad_norm"], told["grad_norm"][step], rtol=1e-4)
        np.testing.assert_allclose(float(rate(step)), told["lr_used"][step], rtol=1e-6)
    return state, states


@pytest.mark.parametrize("dense", [True, False])
def test_loss_and_gradients_of_stage_3(tiny, dense):
    trainable, frozen = split_trainable(tiny.params, STAGE3)
    loss_fn = losses.language_loss(
        tiny.fns.hidden, unembed=tiny.fns.unembed, features=lambda frozen, batch: batch["features"]
    )
    batch = losses.with_targets(tiny.batch, dense=dense)
    grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, _), grads = grad_fn(trainable, frozen, batch, None)
    np.testing.assert_allclose(float(loss), tiny.info["loss_stage3"], atol=1e-5)
    truth = tiny.truth("grads_stage3_all.npz")
    assert grads.keys() == truth.keys()
    for path, expected in truth.items():
        found = np.asarray(grads[path])
        limit = max(1e-5, 3e-5 * np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=limit, rtol=0, err_msg=path)


def test_the_first_step_moves_nothing(tiny):
    state, _ = run_golden(tiny, "adamw_official", rules=STAGE3, steps=1)
    truth = tiny.truth("adamw_official_step1.npz")
    compare(state.trainable, truth, atol=0)
    assert int(state.step) == 1


def test_three_official_steps_and_their_moments(tiny):
    state, _ = run_golden(tiny, "adamw_official", rules=STAGE3, steps=3)
    compare(state.trainable, tiny.truth("adamw_official_step3.npz"), atol=5e-7)
    adam = next(part for part in state.opt_state if hasattr(part, "mu"))
    with np.load(tiny.folder / "adamw_official_moments_step3.npz") as data:
        moments = {kind: {} for kind in "mv"}
        for name in data.files:
            moments[name[0]][name[2:]] = data[name]
    from official_names import from_official

    compare(adam.mu, from_official(moments["m"]), atol=1e-7)
    compare(adam.nu, from_official(moments["v"]), atol=1e-9)


def test_three_strong_steps(tiny):
    state, _ = run_golden(tiny, "adamw_strong", rules=STAGE3, steps=3)
    compare(state.trainable, tiny.truth("adamw_strong_step3.npz"), atol=1e-4)


def test_accumulation_is_the_mean_of_micro_batch_means(tiny, tmp_path):
    script = Path(__file__).resolve().parent / "accumulated_steps.py"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(script.parent.parent.parent)
    out = tmp_path / "out.npz"
    subprocess.run([sys.executable, script, out], env=environment, check=True)
    with np.load(out) as found:
        compare(dict(found), tiny.truth("adamw_accum2_step2.npz"), atol=1e-4)


def test_three_steps_of_stage_1_train_the_projection_alone(tiny_stage1):
    state, _ = run_golden(tiny_stage1, "stage1_adamw", rules=STAGE1, steps=3)
    assert set(state.trainable) == {"audio_proj.kernel", "audio_proj.bias"}
    compare(state.trainable, tiny_stage1.truth("stage1_adamw_step3.npz"), atol=5e-7)


def test_released_schedules_are_those_of_the_official_logs(golden):
    runs = json.loads((golden / "lr_schedule_official_logs.json").read_text())["runs"]
    files = {"stage1_proj_cla": stage1, "stage2_all_cla": stage2, "stage3_all_mix_v1": stage3,
             "stage3_all_mix_v2": stage3}  # fmt: skip
    for run in runs:
        released = files[run["stage"]].get_config("released").optimizer.to_dict()
        config = build(OptimizerConfig, released, where="optimizer")
        assert (config.learning_rate, config.warmup_steps) == (run["base_lr"], run["warmup_steps"])
        rate = learning_rate(config, steps=run["max_steps"])
        for row in run["logged"]:
            # Logged after the scheduler moved on: the rate of the next step, whose number from 0
            # is the logged number from 1.
            np.testing.assert_allclose(
                float(rate(row["step"])), row["learning_rate"], rtol=2e-5, err_msg=str(row)
            )
