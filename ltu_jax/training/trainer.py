"""Train one stage: from its config to a trained checkpoint, read from top to bottom.

Tagging and the three language stages take this one road. They differ in the loss, in which
parameters are trained, and in what they start from. `train_stage` makes everything that the loop in
`train` needs; SIGINT and SIGTERM end the loop after the step in flight, with a checkpoint.
"""

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from ltu_jax import checkpoint
from ltu_jax.core.compilation import keep_compiled
from ltu_jax.core.distributed import (
    Votes,
    batch_share,
    host_batch_to_global,
    is_main,
    together,
)
from ltu_jax.core.files import write_json
from ltu_jax.core.paths import as_path
from ltu_jax.training import flops
from ltu_jax.training.evaluators import Evaluator, make_evaluators, open_held_out
from ltu_jax.training.initialize import Prepared, prepare, restored, starting_adapter
from ltu_jax.training.logs import RunLog
from ltu_jax.training.optimizer import learning_rate
from ltu_jax.training.program import split_parameters, stage_optimizer
from ltu_jax.training.recorder import Schedule, StepRecorder, is_due
from ltu_jax.training.resilience.consistency import (
    agree_at_the_end,
    agree_on_files,
    agree_while_training,
    rows_of,
)
from ltu_jax.training.resilience.goodput import Clock, Meter, goodput
from ltu_jax.training.resilience.guards import Skips
from ltu_jax.training.resilience.watchdog import Watchdog
from ltu_jax.training.run_folder import find_saved, inputs_of, locked, require_run
from ltu_jax.training.saving import Saver, check_room_for, describe
from ltu_jax.training.stage import Stage, assemble, open_bases
from ltu_jax.training.stage_config import StageSettings
from ltu_jax.training.state import TrainState, skipped_steps


def train_stage(
    settings: StageSettings,
    *,
    resolved: Mapping[str, Any],
    devices: Sequence[jax.Device] | None = None,
    batches: Callable[..., Iterator[dict[str, np.ndarray]]] | None = None,
) -> "Outcome | None":
    """Train one stage to its end, resuming if its run folder has a checkpoint.

    Nothing is written before config, weights, records and start are known to be usable.

    Args:
        settings: the stage.
        resolved: the same as a JSON-able dict, kept in the checkpoint.
        devices: what to train on; None for all.
        batches: `batches(stage, start_step=)` yields this host's batches; None for those of its
            pipeline.

    Returns:
        How it went; None when the run folder already held the last step.

    Raises:
        UserError: missing weights, a start that is refused, a run folder of another config or of
            other inputs.
        LockedError: another trainer is at work in the run folder.
    """
    clock = Clock(part="start")
    if settings.compute.compilation_cache:
        keep_compiled(settings.compute.compilation_cache)
    run_dir, cannot_start = as_path(settings.run_dir), f"{settings.stage} cannot start"
    with together(cannot_start):
        require_run(settings)
    # Base weights, model, loss and data.
    with together(cannot_start):
        stage = assemble(settings, open_bases(settings), devices=devices)
        check_optimizer(stage)
        held_out = open_held_out(stage)
        inputs = inputs_of(stage)
    agree_on_files(stage)
    with together(cannot_start):
        adapter = None if checkpoint.steps_in(run_dir) else starting_adapter(stage)
    with locked(run_dir, job=settings.stage) as turn:
        # A checkpoint to go on from, and room for those to come.
        saved = find_saved(stage, resolved=resolved, inputs=inputs)
        if saved.step == stage.steps:
            return None
        with together(cannot_start):
            if is_main():
                check_room_for(stage, newest=saved.step or 0)
        # Computed before the big weights take the memory.
        clip_fingerprint = saved.clip_fingerprint(stage) or stage.bases.clip_fingerprint()
        # Parameters on the devices, and the compiled step.
        start = prepare(stage, saved=saved.folder, start=adapter)
        if saved.folder is not None:
            with clock.within("restore"):
                start = restored(start, saved.folder)
        # What watches the run, and what writes it down.
        log = open_log(stage, start, resolved=resolved, changed=saved.changed)
        peak, peak_source = flops.peak_flops(override=settings.log.peak_flops)
        recorder = make_recorder(stage, start, log=log, clock=clock, peak=peak)
        metadata = describe(
            stage,
            resolved=resolved,
            inputs=inputs,
            mfu_peak=peak_source,
            clip_fingerprint=clip_fingerprint,
        )
        keep = settings.checkpoint.keep
        batches_from = functools.partial(batches, stage) if batches else stage.pipeline.batches
        with Saver(
            run_dir, frozen=start.frozen_adapter, metadata=metadata, keep=keep, turn=turn
        ) as saver:
            outcome = train(
                start,
                batches=batches_from(start_step=int(start.state.step)),
                schedule=schedule_of(stage),
                recorder=recorder,
                saver=saver,
                evaluators=make_evaluators(stage, held_out, frozen=start.frozen, log=log),
                compare=agree_while_training(stage),
                watchdog=make_watchdog(stage, recorder),
            )
        if log is not None:
            log.close()
    agree_at_the_end(step=int(outcome.state.step), last_loss=outcome.last_loss, resolved=resolved)
    return dataclasses.replace(outcome, signal=outcome.signal or saver.signal)


class CheckpointSaver(Protocol):
    """The part of `saving.Saver` that the loop uses; its saves may go on while it trains."""

    def save(self, state: TrainState) -> Path:
        """Begin to write a checkpoint; returns the folder that it will have."""

    def poll(self) -> None:
        """Raise what went wrong with a save that has ended; never wait."""

    def finish(self) -> None:
        """Wait until all that was begun is written, or raise why it is not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run of the loop; rates leave out steps that compiled a new shape.

    Losses are of steps that were not skipped, nan if there were none; `skipped` counts over the
    whole run. `parts` are seconds by `goodput.PARTS` and sum to the wall time of the clock.
    """

    state: TrainState
    checkpoint: Path
    signal: int
    steps: int
    skipped: int
    seconds: float
    parts: dict[str, float]
    first_loss: float
    last_loss: float
    validation: dict[str, float]
    tokens_per_second: float
    pairs_per_second: float
    steps_per_second: float
    mfu: float

    @property
    def goodput(self) -> float:
        """The share of useful time."""
        return goodput(self.parts)


def train(
    start: Prepared,
    *,
    batches: Iterator[dict[str, np.ndarray]],
    schedule: Schedule,
    recorder: StepRecorder,
    saver: CheckpointSaver,
    evaluators: Sequence[Evaluator],
    compare: Callable[[TrainState], None],
    watchdog: Watchdog,
) -> Outcome:
    """Train from `start` to `schedule.steps` and leave a checkpoint, also when a signal comes.

    Args:
        start: step function, frozen parameters and the state, whose buffers the first step takes.
        batches: host batches of this process, the first one for step `start.state.step`.
        schedule: the length of the run and its intervals.
        recorder: reads the metrics of each step while the next one runs.
        saver: writes the checkpoints.
        evaluators: run in their order, each at its own interval and at the end.
        compare: raises if processes or devices went apart.
        watchdog: ends a process that stands still.

    Raises:
        AgreedError: too many skipped steps in a row, not one good step to the end, or processes
            that differ; the last checkpoint is left untouched.
    """
    state, clock, began = start.state, recorder.clock, time.monotonic()
    first_step, votes, compiled = int(state.step), Votes(), set()
    validation: dict[str, float] = {}
    with stop_signals() as received, recorder, watchdog, clock.within("step"):
        with clock.within("compare"):
            compare(state)
        for step in range(first_step, schedule.steps):
            clock.turn("data")
            host = next(batches)
            recorder.data_arrived()
            shapes = tuple(sorted((name, leaf.shape) for name, leaf in host.items()))
            batch = host_batch_to_global(host, start.mesh)
            with clock.within("step" if shapes in compiled else "compile"):
                # This is training.
                state, metrics = start.step_fn(state, start.frozen, batch, start.key)
            compiled.add(shapes)
            saver.poll()
            recorder.dispatched(step, metrics=metrics, host=host, shapes=shapes)
            watchdog.beat()
            stop, done = votes.cast(bool(received)), step + 1
            last = done == schedule.steps or stop
            saving = last or is_due(schedule.save_every, done)
            comparing = saving or is_due(schedule.compare_every, done)
            evaluating = [e for e in evaluators if (last or is_due(e.every, done)) and not stop]
            if comparing or evaluating:
                recorder.read()
                if last and not stop:
                    recorder.require_one_good()
                if comparing:
                    with clock.within("compare"):
                        compare(state)
                if saving:
                    recorder.leave_recent(done)
                    with clock.within("save"):
                        folder = saver.save(state)
                for evaluator in evaluating:
                    with clock.within("validate"):
                        values = evaluator(state)
                    recorder.row(done, values)
                    validation |= values
                recorder.meter.restart()
            if stop:
                break
        with clock.within("save"):
            saver.finish()
    return Outcome(
        state=state,
        checkpoint=folder,
        signal=received[0] if received else 0,
        steps=int(state.step) - first_step,
        skipped=recorder.skipped,
        seconds=time.monotonic() - began,
        parts=clock.seconds(),
        first_loss=recorder.losses[0] if recorder.losses else math.nan,
        last_loss=float(np.mean(recorder.losses[-20:])) if recorder.losses else math.nan,
        validation=validation,
        **recorder.meter.summary(),
    )


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_recorder(
    stage: Stage, start: Prepared, *, log: RunLog | None, clock: Clock, peak: float
) -> StepRecorder:
    """Make the account of a stage's run, with rates against `peak` FLOP/s."""
    settings = stage.settings
    rate = jax.jit(learning_rate(settings.optimizer, steps=stage.steps))
    return StepRecorder(
        schedule_of(stage),
        first_step=int(start.state.step),
        title=settings.stage,
        log=log,
        clock=clock,
        meter=Meter(
            peak_flops=peak,
            work=functools.partial(
                flops.count_work,
                audio_tokens=settings.model.audio_tokens,
                parts=batch_share(stage.mesh).count,
            ),
            flops=functools.partial(
                flops.model_flops, flops.model_size(settings, stage.model.shapes)
            ),
        ),
        skips=Skips(
            settings.guards,
            total=skipped_steps(start.state),
            rows=rows_of(stage),
            run_dir=as_path(settings.run_dir),
            mesh=stage.mesh,
            title=settings.stage,
        ),
        learning_rate=lambda step: float(rate(step)),
    )


def make_watchdog(stage: Stage, recorder: StepRecorder) -> Watchdog:
    """Make what ends this process when the run of a stage stands still."""
    settings = stage.settings
    return Watchdog(
        recorder.clock,
        config=settings.guards,
        median=recorder.meter.median,
        report=as_path(settings.run_dir) / f"stall-{jax.process_index()}.txt",
        title=settings.stage,
    )


def schedule_of(stage: Stage) -> Schedule:
    """Return the length of a stage's run and its intervals."""
    settings = stage.settings
    return Schedule(
        steps=stage.steps,
        log_every=settings.log.every,
        save_every=settings.checkpoint.every,
        compare_every=settings.guards.compare_every,
    )


def open_log(
    stage: Stage, start: Prepared, *, resolved: Mapping[str, Any], changed: Mapping[str, Any]
) -> RunLog | None:
    """Begin or go on with the log of a run, on the main process, by what is trained on."""
    if not is_main():
        return None
    settings, step = stage.settings, int(start.state.step)
    run_dir = as_path(settings.run_dir)
    log = RunLog(run_dir, tensorboard=settings.log.tensorboard)
    write_json(run_dir / "config.json", resolved)
    rows, selection = stage.pipeline.report(), stage.pipeline.selection
    print(f"{settings.stage}: {selection}", flush=True)
    log.row(step, {"datasets": dataclasses.asdict(selection)})
    if rows is not None:
        print(f"{settings.stage}: {rows}", flush=True)
        log.row(step, {"rows": dataclasses.asdict(rows)})
    if changed:
        log.row(step, {"other_inputs": dict(changed)})
    return log


def check_optimizer(stage: Stage) -> None:
    """Require tables and schedule that fit the stage's parameters and steps."""
    trainable, _ = split_parameters(stage.model.shapes, stage.settings)
    stage_optimizer(stage.settings, paths=trainable, steps=stage.steps)
