"""The training loop: one function read from top to bottom, for every stage.

Metrics of step N - 1 are read only after step N was dispatched, so the device never waits for the
host. SIGINT and SIGTERM end the loop after the step in flight, with a checkpoint.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import AgreedError, Votes, host_batch_to_global, is_main
from ltu_jax.core.trees import Params
from ltu_jax.training.logs import RunLog
from ltu_jax.training.metrics import StepWork
from ltu_jax.training.state import TrainState
from ltu_jax.training.step import StepFn

# Step times that ETA and the rates of a log row look back on.
_WINDOW = 20


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
    """What the loop calls besides the step; `validate` returns scalars, `samples` logs."""

    save: Callable[[TrainState], Path]
    validate: Callable[[TrainState], dict[str, float]] | None
    samples: Callable[[TrainState], None] | None
    work: Callable[[Mapping[str, np.ndarray]], StepWork]
    flops: Callable[[StepWork], float]
    rate: Callable[[int], float]
    poll: Callable[[], None] = lambda: None
    finish_saves: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the loop ended; rates leave out steps that compiled a new shape."""

    state: TrainState
    checkpoint: Path
    signal: int
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    validation: dict[str, float]
    tokens_per_second: float
    pairs_per_second: float
    steps_per_second: float
    mfu: float


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
    log: RunLog | None,
    peak_flops: float,
    title: str,
) -> Outcome:
    """Train from `state` to `schedule.steps` and leave a checkpoint, also when a signal comes.

    Args:
        state: where to start; its buffers are donated to the first step.
        batches: host batches of this process, the first one for step `state.step`.
        log: of the main process, None elsewhere.
        title: shown beside the progress bar.

    Raises:
        AgreedError: the loss is not finite; the last checkpoint is left untouched.
    """
    started, first_step = time.monotonic(), int(state.step)
    meter = _Meter(peak_flops=peak_flops, flops=hooks.flops)
    losses: list[float] = []
    votes = Votes()
    validation: dict[str, float] = {}
    waiting: tuple[int, dict[str, Array], StepWork, tuple] | None = None
    bar = tqdm(
        total=schedule.steps, initial=first_step, desc=title, disable=not is_main(), mininterval=1.0
    )

    def read(done: tuple[int, dict[str, Array], StepWork, tuple]) -> None:
        step, metrics, work, shapes = done
        values = {name: float(value) for name, value in metrics.items()}
        meter.add(work, shapes)
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise AgreedError(  # these numbers are the same on every process
                f"{title}: loss {values['loss']} and gradient norm {values['grad_norm']} at step "
                f"{step}; lower optimizer.learning_rate or look at the data of this step"
            )
        losses.append(values["loss"])
        left = schedule.steps - step - 1
        bar.set_postfix_str(f"loss {np.mean(losses[-10:]):.3f}", refresh=False)
        bar.update(1)
        if log is not None and ((step + 1) % schedule.log_every == 0 or left == 0):
            values["loss"] = float(np.mean(losses[-schedule.log_every :]))
            values["learning_rate"] = hooks.rate(step)
            log.row(step + 1, {**values, **meter.rates(), "eta_seconds": left * meter.pace()})

    with _stop_signals() as received, bar:
        for step in range(first_step, schedule.steps):
            host = next(batches)
            work = hooks.work(host)
            shapes = tuple(sorted((name, leaf.shape) for name, leaf in host.items()))
            batch = host_batch_to_global(host, mesh)
            state, metrics = step_fn(state, frozen, batch, key)
            hooks.poll()
            if waiting is not None:
                read(waiting)
            waiting = (step, metrics, work, shapes)
            stop = votes.cast(bool(received))
            last = step + 1 == schedule.steps or stop
            due = [
                every and (step + 1) % every == 0
                for every in (schedule.save_every, schedule.validate_every, schedule.samples_every)
            ]
            if last or any(due):
                read(waiting)
                waiting = None
            if due[0] or last:
                checkpoint = hooks.save(state)
            if (due[1] or last) and not stop and hooks.validate is not None:
                validation = hooks.validate(state)
                if log is not None:
                    log.row(step + 1, validation)
            if (due[2] or last) and not stop and hooks.samples is not None:
                hooks.samples(state)
            if any(due) or last:
                meter.restart()
            if stop:
                break
        hooks.finish_saves()
    return Outcome(
        state=state,
        checkpoint=checkpoint,
        signal=received[0] if received else 0,
        steps=len(losses),
        seconds=time.monotonic() - started,
        first_loss=losses[0],
        last_loss=float(np.mean(losses[-20:])),
        validation=validation,
        **meter.summary(),
    )


class _Meter:
    """Step times, without the steps that compiled a new shape or followed an interruption."""

    def __init__(self, *, peak_flops: float, flops: Callable[[StepWork], float]) -> None:
        self._peak, self._flops = peak_flops, flops
        self._seen: set[tuple] = set()
        self._rows: list[tuple[float, int, int, float]] = []
        self._last = time.monotonic()

    def restart(self) -> None:
        self._last = time.monotonic()

    def add(self, work: StepWork, shapes: tuple) -> None:
        now = time.monotonic()
        if shapes in self._seen:
            self._rows.append((now - self._last, work.tokens, work.pairs, self._flops(work)))
        self._seen.add(shapes)
        self._last = now

    def pace(self) -> float:
        recent = [seconds for seconds, *_ in self._rows[-_WINDOW:]]
        return float(np.mean(recent)) if recent else 0.0

    def rates(self, rows: int = _WINDOW) -> dict[str, float]:
        chosen = self._rows[-rows:] if rows else self._rows
        if not chosen:
            return {}
        seconds, tokens, pairs, flops = np.sum(np.asarray(chosen, np.float64), axis=0)
        return {
            "steps_per_second": len(chosen) / seconds,
            "tokens_per_second": tokens / seconds,
            "pairs_per_second": pairs / seconds,
            "mfu": flops / seconds / self._peak,
        }

    def summary(self) -> dict[str, float]:
        names = ("steps_per_second", "tokens_per_second", "pairs_per_second", "mfu")
        zeros = dict.fromkeys(names, 0.0)
        return {**zeros, **self.rates(rows=0)}


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
