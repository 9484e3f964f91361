"""Account for every step of a run: its metrics, its time, whether it was skipped, its log rows.

Metrics of step N - 1 are read only after step N was dispatched, so the device never waits for the
host. A step with bad numbers was taken back on the device (`resilience/guards.py`) when it is read.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import is_main
from ltu_jax.training.logs import RECENT, RunLog
from ltu_jax.training.resilience.goodput import Clock, Meter, goodput
from ltu_jax.training.resilience.guards import Skips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The length of a run and the intervals of its loop in steps; 0 means only at the end.

    `compare_every` is 0 for only at the start and before each save.
    """

    steps: int
    log_every: int
    save_every: int
    compare_every: int


def is_due(every: int, step: int) -> bool:
    """Return whether something of this interval happens after so many steps."""
    return every > 0 and step % every == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InFlight:
    step: int
    metrics: dict[str, Array]
    host: Mapping[str, np.ndarray]
    shapes: tuple


class StepRecorder:
    """The account of one run of the loop; a context that shows the progress bar."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        first_step: int,
        title: str,
        log: RunLog | None,
        clock: Clock,
        meter: Meter,
        skips: Skips,
        learning_rate: Callable[[int], float],
    ) -> None:
        """Prepare to record.

        Args:
            schedule: of the run.
            first_step: where the loop begins.
            title: shown beside the progress bar.
            log: of the main process, None elsewhere.
            clock: of the loop, started before it.
            meter: turns batches and times into rates.
            skips: takes account of skipped steps.
            learning_rate: of a step that the optimiser counts.
        """
        self.clock, self.meter, self.log = clock, meter, log
        self.losses: list[float] = []
        self._schedule, self._skips, self._learning_rate = schedule, skips, learning_rate
        # What a row of the log averages, also over an interruption.
        self._recent = collections.deque(
            log.recent_losses(first_step) if log else [], maxlen=schedule.log_every
        )
        self._waiting: _InFlight | None = None
        self._useful, self._bad_batch = 0.0, None
        self._bar = tqdm(
            total=schedule.steps,
            initial=first_step,
            desc=title,
            disable=not is_main(),
            mininterval=1.0,
        )

    def __enter__(self) -> "StepRecorder":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def skipped(self) -> int:
        """The number of skipped steps of the whole run."""
        return self._skips.total

    def data_arrived(self) -> None:
        """Let time go to the step; the wait for data is its time too where one is in flight."""
        waited = self.clock.turn("step")
        if self._waiting is not None and not self._waiting.metrics["loss"].is_ready():
            self.clock.move(waited, source="data", target="step")

    def dispatched(
        self, step: int, *, metrics: dict[str, Array], host: Mapping[str, np.ndarray], shapes: tuple
    ) -> None:
        """Note the step that the devices work on, after reading the metrics of the one before."""
        self.read()
        self._waiting = _InFlight(step=step, metrics=metrics, host=host, shapes=shapes)

    def read(self) -> None:
        """Wait for the step in flight, if any, and account for it.

        Raises:
            AgreedError: too many skipped steps in a row, or a batch that cannot be kept.
        """
        if self._waiting is None:
            return
        done, self._waiting = self._waiting, None
        values = {name: float(value) for name, value in done.metrics.items()}
        self.meter.add(done.host, done.shapes)
        before, self._useful = self._useful, self.clock.seconds()["step"]
        if values.pop("skipped"):
            self.clock.move(self._useful - before, source="step", target="skipped")
            self._useful = before
            self._skip(done, values)
        else:
            self._skips.good()
            self.losses.append(values["loss"])
            self._recent.append(values["loss"])
        if self.losses:
            self._bar.set_postfix_str(f"loss {np.mean(self.losses[-10:]):.3f}", refresh=False)
        self._bar.update(1)
        count = done.step + 1
        if is_due(self._schedule.log_every, count) or count == self._schedule.steps:
            self._log_step(count, values)

    def _skip(self, done: _InFlight, values: Mapping[str, float]) -> None:
        bad, self._bad_batch = self._skips.add(done.step, values, done.host)
        row = dataclasses.asdict(bad) | {
            "loss": str(bad.loss), "grad_norm": str(bad.grad_norm), "file": str(self._bad_batch)
        }  # fmt: skip
        self.row(done.step + 1, {"skipped_step": row})

    def _log_step(self, count: int, values: Mapping[str, float]) -> None:
        values = {
            name: value for name, value in values.items() if name != "loss" and math.isfinite(value)
        }
        averaged = {"loss": float(np.mean(self._recent))} if self._recent else {}
        self.row(
            count,
            {
                **averaged,
                **values,
                "learning_rate": self._learning_rate(max(0, count - 1 - self.skipped)),
                "skipped_steps": self.skipped,
                **self.meter.rates(),
                "goodput": goodput(self.clock.seconds()),
                "seconds_of": self.clock.seconds(),
                "eta_seconds": (self._schedule.steps - count) * self.meter.pace(),
            },
        )

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """Log values of a step, on the main process."""
        if self.log is not None and values:
            self.log.row(step, values)

    def leave_recent(self, step: int) -> None:
        """Log the losses that a run which goes on from this step's checkpoint averages."""
        self.row(step, {RECENT: list(self._recent)})
        if self.log is not None:
            self.log.flush()

    def require_one_good(self) -> None:
        """Refuse to end a run on skipped steps alone: nothing was learned that could be saved.

        Raises:
            AgreedError: on every process; names the steps and their rows.
        """
        if not self.losses:
            self._skips.require_one_good(path=self._bad_batch)
