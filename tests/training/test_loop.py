"""The loop: order of data, logs, stopping by signal."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ltu_jax.models.text_batch import with_targets
from ltu_jax.training.flops import StepWork
from ltu_jax.training.initialize import Prepared
from ltu_jax.training.logs import RunLog, plot_losses, read_rows
from ltu_jax.training.recorder import Schedule
from tests.support.golden_model import STAGE3, guard_config, make_trainer, optimizer_config
from tests.support.toy_step import Hooks, run_loop


def loop(tiny, run_dir, *, steps=6, interrupt=None, validate=None, save_every=0):
    """Run the loop on the golden model; returns the outcome and the steps that were saved."""
    config = optimizer_config(learning_rate=1e-3, warmup_steps=1)
    trainer = make_trainer(tiny, rules=STAGE3, config=config, steps=steps)
    saved = []

    def batches():
        for step in range(steps):
            batch = dict(tiny.batch)
            if step == interrupt:
                os.kill(os.getpid(), signal.SIGTERM)
            yield with_targets(batch)

    def save(state):
        saved.append(int(state.step))
        return run_dir / str(int(state.step))

    log = RunLog(run_dir, tensorboard=True)
    outcome = run_loop(
        Prepared(
            state=trainer.state,
            frozen=trainer.frozen,
            frozen_adapter={},
            step_fn=trainer.step,
            mesh=trainer.mesh,
            key=jax.random.key(0),
        ),
        batches(),
        run_dir,
        schedule=Schedule(steps=steps, log_every=2, save_every=save_every, compare_every=0),
        hooks=Hooks(save=save, validate=validate, validate_every=3),
        log=log,
        guards=guard_config(),
        work=StepWork(clips=3, pairs=5, audio_tokens=75, text_tokens=200, targets=190),
        learning_rate=lambda step: step / 10,
        title="test",
    )
    log.audio(steps, "clips/one", np.zeros(160, np.float32), rate=16000)
    log.text(steps, "answers", "**yes**")
    log.close()
    return outcome, saved


def test_a_run_logs_validates_and_saves(tiny, tmp_path):
    outcome, saved = loop(tiny, tmp_path, validate=lambda state: {"val_loss": float(state.step)})
    assert saved == [6] and int(outcome.state.step) == 6 and outcome.signal == 0
    assert outcome.validation == {"val_loss": 6.0}
    assert outcome.last_loss < outcome.first_loss
    # `StepWork` and the peak of the test: 275 tokens, 5 pairs and 1e9 of 1e12 FLOP a step.
    pace = outcome.steps_per_second
    assert pace > 0 and outcome.tokens_per_second == pytest.approx(275 * pace)
    assert outcome.pairs_per_second == pytest.approx(5 * pace)
    assert outcome.mfu == pytest.approx(1e-3 * pace)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 6]
    assert [row["learning_rate"] for row in trained] == pytest.approx([0.1, 0.3, 0.5])
    assert [row["val_loss"] for row in rows if "val_loss" in row] == [3.0, 6.0]
    assert {"grad_norm", "token_accuracy", "tokens_per_second", "mfu", "eta_seconds"} <= set(
        trained[-1]
    )


def test_tensorboard_reads_what_was_written(tiny, tmp_path):
    loop(tiny, tmp_path, steps=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"loss", "grad_norm", "learning_rate"} <= set(tags["scalars"])
    assert tags["audio"] == ["clips/one"]
    assert events.Tensors("answers")[0].tensor_proto.string_val == [b"**yes**"]


def test_sigterm_ends_after_the_step_with_a_checkpoint(tiny, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    outcome, saved = loop(tiny, tmp_path, interrupt=3)
    assert outcome.signal == signal.SIGTERM
    assert saved == [4] and int(outcome.state.step) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_losses_are_drawn_and_rows_survive_a_cut_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
    assert read_rows(path) == [{"step": 1, "loss": 2.5}]
    plot_losses({"stage1": [(1, 3.0), (2, 2.0)], "stage2": [(1, 1.0)]}, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
