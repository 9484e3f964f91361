"""From the settings of a stage to a trained checkpoint.

Tagging and the three language stages take this one road. They differ in the loss, in which
parameters are trained, and in what they start from.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from ltu_jax import checkpoint
from ltu_jax.core.distributed import batch_share, from_main, is_main, together
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.lock import RunLock
from ltu_jax.core.trees import Params
from ltu_jax.training import evaluators, metrics
from ltu_jax.training.initialize import starting_adapter
from ltu_jax.training.inputs import INPUTS, compare_inputs, inputs_of
from ltu_jax.training.logs import RunLog
from ltu_jax.training.loop import Hooks, Outcome, Schedule, run_loop
from ltu_jax.training.optimizer import learning_rate
from ltu_jax.training.options import keep_compiled
from ltu_jax.training.prepare import Prepared, prepare
from ltu_jax.training.program import is_adapter, model_size, split_parameters, stage_optimizer
from ltu_jax.training.resilience.consistency import (
    agree_at_the_end,
    agree_on_files,
    agree_while_training,
    rows_of,
)
from ltu_jax.training.resilience.goodput import Clock
from ltu_jax.training.saving import Saver, check_room, checkpoint_bytes
from ltu_jax.training.stage import (
    Stage,
    assemble,
    count_work,
    host_batches,
    leaves,
    open_bases,
)
from ltu_jax.training.stage_config import ADDED, StageSettings
from ltu_jax.training.state import abstract_state, state_shardings
from ltu_jax.weights.fingerprint import KEY, Fingerprint
from ltu_jax.weights.open import base_entry


def run_stage(settings: StageSettings, *, resolved: Mapping[str, Any]) -> Outcome | None:
    """Train one stage to its end, resuming if its run folder has a checkpoint.

    Nothing is written before config, weights, records and start are known to be usable.

    Args:
        settings: the stage.
        resolved: the same as a JSON-able dict, kept in the checkpoint.

    Returns:
        How it went; None when the run folder already held the last step.

    Raises:
        UserError: missing weights, a start that is refused, a run folder of another config or of
            other inputs.
        LockedError: another trainer is at work in the run folder.
    """
    clock = Clock(part="start")
    keep_compiled(settings.compute.compilation_cache)
    run_dir, start = Path(settings.run_dir), None
    with together(f"{settings.stage} cannot start"):
        bases = open_bases(settings)
        stage = assemble(settings, bases)
        check_optimizer(stage)
        held_out = evaluators.open_held_out(stage)
        inputs = inputs_of(stage)
    agree_on_files(stage)
    with together(f"{settings.stage} cannot start"):
        if not checkpoint.steps_in(run_dir):
            start = starting_adapter(stage)
    with locked(run_dir, what=settings.stage) as turn:
        found = find_saved(stage, resolved=resolved, inputs=inputs)
        if found.step == stage.steps:
            return None
        with together(f"{settings.stage} cannot start"):
            if is_main():
                check_room_for(stage, newest=found.step or 0)
        clip_fingerprint = None
        if found.metadata.get("feature_fingerprint") == bases.fingerprint:  # same weights, dtype
            clip_fingerprint = Fingerprint.from_json(found.metadata.get(KEY))
        if clip_fingerprint is None:
            clip_fingerprint = bases.clip_fingerprint()  # before the big weights take the memory
        prepared = prepare(stage, saved=found.folder, start=start)
        if found.folder is not None:
            with clock.within("restore"):
                state, _ = checkpoint.restore(
                    found.folder,
                    like=prepared.state,
                    shardings=state_shardings(prepared.state, mesh=stage.mesh),
                    verify=False,
                )
            prepared = dataclasses.replace(prepared, state=state)
        log = open_log(stage, prepared, resolved=resolved, changed=found.changed)
        peak, peak_source = metrics.peak_flops(override=settings.log.peak_flops)
        described = describe(
            stage,
            resolved=resolved,
            inputs=inputs,
            run_dir=run_dir,
            mfu_peak=peak_source,
            clip_fingerprint=clip_fingerprint,
        )
        saver = Saver(
            run_dir,
            frozen=prepared.frozen_adapter,
            metadata=described,
            keep=settings.checkpoint.keep,
            turn=turn,
        )
        with saver:
            outcome = run_loop(
                prepared.state,
                step_fn=prepared.step_fn,
                frozen=prepared.frozen,
                batches=host_batches(stage, start_step=int(prepared.state.step)),
                mesh=stage.mesh,
                key=jax.random.key(settings.seed),
                schedule=schedule_of(stage),
                hooks=hooks_of(stage, saver, held_out=held_out, frozen=prepared.frozen, log=log),
                guards=settings.guards,
                run_dir=run_dir,
                log=log,
                peak_flops=peak,
                title=settings.stage,
                clock=clock,
            )
        if log is not None:
            log.close()
    agree_at_the_end(step=int(outcome.state.step), last_loss=outcome.last_loss, resolved=resolved)
    return dataclasses.replace(outcome, signal=outcome.signal or saver.signal)


@contextlib.contextmanager
def locked(run_dir: Path, *, what: str) -> Iterator[checkpoint.Turn]:
    """Hold the lock of a run folder, for all processes of this run by the main one.

    Raises:
        LockedError: another run holds it.
    """
    lock = RunLock(run_dir, what=what)
    with contextlib.ExitStack() as held:
        with together(f"{what} cannot start"):
            if is_main():
                held.enter_context(lock.hold())
        name = from_main(lock.token)[:8]
        if is_main():
            yield checkpoint.Turn(check=lock.check, poll=lock.poll, name=name)
        else:
            yield checkpoint.Turn(name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """Where a run goes on from, None and {} where it begins; `changed` are inputs accepted."""

    step: int | None
    folder: Path | None
    metadata: Mapping[str, Any]
    changed: Mapping[str, Any]


def find_saved(
    stage: Stage, *, resolved: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]
) -> Saved:
    """The newest good checkpoint of a stage's run folder, if it is one of this config and inputs.

    Raises:
        UserError: it is of another config, of other inputs, or of more steps than the run has.
    """
    settings = stage.settings
    run_dir = Path(settings.run_dir)
    newest = checkpoint.newest_good(run_dir)
    if newest is None:
        return Saved(step=None, folder=None, metadata={}, changed={})
    folder = run_dir / checkpoint.FOLDER / str(newest)
    with together(f"{settings.stage} cannot go on"):
        _, metadata = checkpoint.read_metadata(folder, verify=False)
        refuse_other_config(metadata["config"], resolved, run_dir=run_dir)
        changed = compare_inputs(
            metadata,
            inputs,
            saved=folder,
            allow=settings.checkpoint.allow_other_inputs,
        )
        if newest > stage.steps:
            raise UserError(
                f"{folder} is of step {newest}, but the run has {stage.steps} steps now "
                f"({'config.steps' if settings.steps else 'config.data.epochs of these records'}); "
                "ask for more steps, or choose another --config.run_dir (--config.init_from takes "
                "over what was learned)"
            )
    return Saved(step=newest, folder=folder, metadata=metadata, changed=changed)


def open_log(
    stage: Stage, prepared: Prepared, *, resolved: Mapping[str, Any], changed: Mapping[str, Any]
) -> RunLog | None:
    """Begin or go on with the log of a run, on the main process: what it trains on, and on what."""
    if not is_main():
        return None
    settings, step = stage.settings, int(prepared.state.step)
    run_dir = Path(settings.run_dir)
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


def schedule_of(stage: Stage) -> Schedule:
    """When the loop of a stage does what."""
    settings = stage.settings
    return Schedule(
        steps=stage.steps,
        log_every=settings.log.every,
        save_every=settings.checkpoint.every,
        validate_every=settings.log.validate_every,
        samples_every=settings.log.samples_every,
    )


def hooks_of(
    stage: Stage,
    saver: Saver,
    *,
    held_out: evaluators.HeldOut,
    frozen: Params,
    log: RunLog | None,
) -> Hooks:
    """What the loop of a stage calls besides the step."""
    settings = stage.settings
    rate = jax.jit(learning_rate(settings.optimizer, steps=stage.steps))
    return Hooks(
        save=saver.save,
        poll=saver.poll,
        finish_saves=saver.finish,
        validate=evaluators.validation(stage, held_out.validation, frozen=frozen),
        samples=evaluators.samples(stage, held_out.samples, frozen=frozen, log=log),
        work=functools.partial(
            count_work,
            audio_tokens=settings.model.audio_tokens,
            parts=batch_share(stage.mesh).count,
        ),
        flops=functools.partial(metrics.model_flops, model_size(settings, stage.fns.shapes)),
        rate=lambda step: float(rate(step)),
        agree=agree_while_training(stage),
        rows=rows_of(stage),
    )


def check_optimizer(stage: Stage) -> None:
    """Require tables and schedule that fit the stage's parameters and steps."""
    trainable, _ = split_parameters(stage.fns.shapes, stage.settings)
    stage_optimizer(stage.settings, paths=trainable, steps=stage.steps)


def check_room_for(stage: Stage, *, newest: int) -> None:
    """Require room for the checkpoints that a stage has still to write; see `check_room`."""
    settings, shapes = stage.settings, stage.fns.shapes
    trainable, _ = split_parameters(shapes, settings)
    tx = stage_optimizer(settings, paths=trainable, steps=stage.steps)
    every = settings.checkpoint.every
    check_room(
        Path(settings.run_dir),
        size=checkpoint_bytes(
            {path: leaf for path, leaf in shapes.items() if is_adapter(path)},
            abstract_state(trainable, tx),
        ),
        keep=settings.checkpoint.keep,
        saves=len(range(newest + every, stage.steps, every)) + 1 if every else 1,
    )


def describe(
    stage: Stage,
    *,
    resolved: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]],
    run_dir: Path,
    mfu_peak: str,
    clip_fingerprint: Fingerprint,
) -> dict[str, Any]:
    """Metadata with which a checkpoint explains itself (see `checkpoint/format.py`)."""
    settings, bases = stage.settings, stage.bases
    tagging = settings.stage == "tagging"
    model = {
        "tltr": dataclasses.asdict(settings.model.tltr),
        "audio_layers": settings.model.whisper.n_audio_layer,
        "audio_tokens": settings.model.audio_tokens,
    }
    base = {"whisper": bases.whisper} | ({} if tagging else {"llama": bases.llama})
    if bases.transcriber is not None:
        base["transcriber"] = bases.transcriber
    # Relative, so that a folder with runs and weights may move; absolute for all other cases.
    inside = run_dir.resolve() / checkpoint.FOLDER / "step"
    return {
        "kind": checkpoint.KINDS[1] if tagging else checkpoint.KINDS[0],
        "stage": settings.stage,
        "model": model if tagging else dataclasses.asdict(settings.model.ltu_as()),
        "whisper_config": dataclasses.asdict(settings.model.whisper),
        "labels": list(stage.pipeline.labels),
        "transcription": settings.weights.transcription,
        "base": {name: base_entry(weights, relative_to=inside) for name, weights in base.items()},
        INPUTS: dict(inputs),
        "config": resolved,
        "feature_fingerprint": bases.fingerprint,
        KEY: clip_fingerprint.to_json(),
        "mfu_peak": mfu_peak,
    }


def refuse_other_config(saved: Mapping[str, Any], now: Mapping[str, Any], *, run_dir: Path) -> None:
    """Require that a run goes on with the config it began with, logging and layout apart.

    Raises:
        UserError: names the keys that differ, with both values.
    """
    free = ("run_dir", "mesh.", "log.", "checkpoint.", "compute.compilation_cache", "weights.",
            "data.workers", "data.records", "data.max_bad_share", "init_from",
            # how the same numbers are computed, up to rounding
            "compute.remat", "compute.attention", "compute.loss_chunk",
            # what is watched, not what is computed
            "guards.skips_in_a_row", "guards.bad_batches", "guards.compare_every",
            "guards.stall_")  # fmt: skip
    after = leaves(now)
    before = {**{key: value for key, value in ADDED.items() if key in after}, **leaves(saved)}
    for found in (before, after):  # one name is as good as a list of one
        if isinstance(found.get("data.tasks"), str):
            found["data.tasks"] = [found["data.tasks"]]
    differing = [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(free)
    ]
    if differing:
        raise UserError(
            f"{run_dir} holds a run of another config ({'; '.join(differing[:5])}); choose another "
            "--config.run_dir, or delete that folder to begin again"
        )
