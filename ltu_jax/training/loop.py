"""The training loop: one function read from top to bottom, for every stage.

Metrics of step N - 1 are read only after step N was dispatched, so the device never waits for the
host. SIGINT and SIGTERM end the loop after the step in flight, with a checkpoint. A step with bad
numbers was taken back on the device (`guards.py`) when the loop hears of it.
"""

import collections
import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import Votes, host_batch_to_global, is_main
from ltu_jax.core.trees import Params
from ltu_jax.training.logs import RECENT, RunLog
from ltu_jax.training.metrics import StepWork
from ltu_jax.training.resilience.goodput import Clock, Meter, goodput
from ltu_jax.training.resilience.guards import GuardConfig, Skips
from ltu_jax.training.resilience.watchdog import Watchdog
from ltu_jax.training.state import TrainState, skipped_steps
from ltu_jax.training.step import StepFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the loop does what, in steps; 0 means only at the end."""

    steps: int
    log_every: int
    save_every: int
    validate_every: int
    samples_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls besides the step.

    `save` may return before the bytes are on the disk: `poll` (after every step) and `finish_saves`
    raise what went wrong. `validate` returns scalars, `samples` logs. `agree` raises if processes
    or devices went apart; `rows` names the rows of a step's global batch.
    """

    save: Callable[[TrainState], Path]
    validate: Callable[[TrainState], dict[str, float]] | None
    samples: Callable[[TrainState], None] | None
    work: Callable[[Mapping[str, np.ndarray]], StepWork]
    flops: Callable[[StepWork], float]
    rate: Callable[[int], float]
    poll: Callable[[], None] = lambda: None
    finish_saves: Callable[[], None] = lambda: None
    agree: Callable[[TrainState], None] = lambda state: None
    rows: Callable[[int], Sequence[str]] = lambda step: ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the loop ended; rates leave out steps that compiled a new shape.

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InFlight:
    step: int
    metrics: dict[str, Array]
    host: Mapping[str, np.ndarray]
    shapes: tuple


def run_loop(
    state: TrainState,
    *,
    step_fn: StepFn,
    frozen: Params,
    batches: Iterator[dict[str, np.ndarray]],
    mesh: Mesh,
    key: Array,
    schedule: Schedule,
    hooks: Hooks,
    guards: GuardConfig,
    run_dir: Path,
    log: RunLog | None,
    peak_flops: float,
    title: str,
    clock: Clock | None = None,
) -> Outcome:
    """Train from `state` to `schedule.steps` and leave a checkpoint, also when a signal comes.

    Args:
        state: where to start; its buffers are donated to the first step.
        batches: host batches of this process, the first one for step `state.step`.
        guards: what is watched and when the run gives up.
        run_dir: for batches of skipped steps, and for the stacks of a run that stands still.
        log: of the main process, None elsewhere.
        title: shown beside the progress bar.
        clock: started by the caller, for time before the loop; None for a new one.

    Raises:
        AgreedError: too many skipped steps in a row, not one good step to the end, or processes
            that differ; the last checkpoint is left untouched.
    """
    started, first_step = time.monotonic(), int(state.step)
    clock = clock or Clock()
    meter = Meter(peak_flops=peak_flops, flops=hooks.flops)
    skips = Skips(
        guards,
        total=skipped_steps(state),
        rows=hooks.rows,
        run_dir=run_dir,
        mesh=mesh,
        title=title,
    )
    losses: list[float] = []
    # What a row of the log averages, also over an interruption.
    recent = collections.deque(
        log.recent_losses(first_step) if log else [], maxlen=schedule.log_every
    )
    votes = Votes()
    validation: dict[str, float] = {}
    waiting: _InFlight | None = None
    shapes_seen: set[tuple] = set()
    stepped, kept = 0.0, None
    bar = tqdm(
        total=schedule.steps, initial=first_step, desc=title, disable=not is_main(), mininterval=1.0
    )
    watchdog = Watchdog(
        clock,
        config=guards,
        median=meter.median,
        report=run_dir / f"stall-{jax.process_index()}.txt",
        title=title,
    )

    def read(done: _InFlight) -> None:
        nonlocal stepped, kept
        values = {name: float(value) for name, value in done.metrics.items()}
        step, work = done.step, hooks.work(done.host)
        meter.add(work, done.shapes)
        watchdog.beat()
        before, stepped = stepped, clock.seconds()["step"]
        if values.pop("skipped"):
            clock.move(stepped - before, source="step", target="skipped")
            stepped = before
            bad, kept = skips.add(step, values, done.host)
            if log is not None:
                told = {"loss": str(bad.loss), "grad_norm": str(bad.grad_norm), "file": str(kept)}
                log.row(step + 1, {"skipped_step": {**dataclasses.asdict(bad), **told}})
        else:
            skips.good()
            losses.append(values["loss"])
            recent.append(values["loss"])
        left = schedule.steps - step - 1
        if losses:
            bar.set_postfix_str(f"loss {np.mean(losses[-10:]):.3f}", refresh=False)
        bar.update(1)
        if log is not None and ((step + 1) % schedule.log_every == 0 or left == 0):
            values = {name: value for name, value in values.items() if math.isfinite(value)}
            values.pop("loss", None)
            averaged = {"loss": float(np.mean(recent))} if recent else {}
            log.row(
                step + 1,
                {
                    **averaged,
                    **values,
                    "learning_rate": hooks.rate(max(0, step - skips.total)),
                    "skipped_steps": skips.total,
                    **meter.rates(),
                    "goodput": goodput(clock.seconds()),
                    "seconds_of": clock.seconds(),
                    "eta_seconds": left * meter.pace(),
                },
            )

    with _stop_signals() as received, bar, watchdog, clock.within("step"):
        with clock.within("compare"):
            hooks.agree(state)
        for step in range(first_step, schedule.steps):
            clock.turn("data")
            host = next(batches)
            spent = clock.turn("step")
            if waiting is not None and not waiting.metrics["loss"].is_ready():
                clock.move(spent, source="data", target="step")
            shapes = tuple(sorted((name, leaf.shape) for name, leaf in host.items()))
            batch = host_batch_to_global(host, mesh)
            with clock.within("step" if shapes in shapes_seen else "compile"):
                state, metrics = step_fn(state, frozen, batch, key)
            shapes_seen.add(shapes)
            hooks.poll()
            if waiting is not None:
                read(waiting)
            waiting = _InFlight(step=step, metrics=metrics, host=host, shapes=shapes)
            stop = votes.cast(bool(received))
            last = step + 1 == schedule.steps or stop
            due = [
                every and (step + 1) % every == 0
                for every in (
                    schedule.save_every,
                    schedule.validate_every,
                    schedule.samples_every,
                    guards.compare_every,
                )
            ]
            if last or any(due):
                read(waiting)
                waiting = None
            if last and not stop and not losses:
                skips.require_one_good(path=kept)
            if due[0] or due[3] or last:
                with clock.within("compare"):
                    hooks.agree(state)
            if due[0] or last:
                if log is not None:
                    log.row(step + 1, {RECENT: list(recent)})
                with clock.within("save"):
                    checkpoint = hooks.save(state)
            if (due[1] or last) and not stop and hooks.validate is not None:
                with clock.within("validate"):
                    validation = hooks.validate(state)
                if log is not None:
                    log.row(step + 1, validation)
            if (due[2] or last) and not stop and hooks.samples is not None:
                with clock.within("validate"):
                    hooks.samples(state)
            if any(due) or last:
                meter.restart()
            if stop:
                break
        with clock.within("save"):
            hooks.finish_saves()
    return Outcome(
        state=state,
        checkpoint=checkpoint,
        signal=received[0] if received else 0,
        steps=int(state.step) - first_step,
        skipped=skips.total,
        seconds=time.monotonic() - started,
        parts=clock.seconds(),
        first_loss=losses[0] if losses else math.nan,
        last_loss=float(np.mean(losses[-20:])) if losses else math.nan,
        validation=validation,
        **meter.summary(),
    )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
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
