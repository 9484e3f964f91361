"""Measure where the time of a run goes: useful steps, and everything that is not.

One clock is always in exactly one part, so the parts sum to the wall time. "step" is useful time;
goodput is its share. Time on the host that the devices do not wait for is no loss: while a step is
in flight, waiting for data counts as "step".
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ltu_jax.training.flops import StepWork, mfu

# "other" is what no caller named, "skipped" steps that were taken back (see `guards.py`).
PARTS = (
    "step", "skipped", "start", "restore", "compile", "data", "compare", "save", "validate", "other"
)  # fmt: skip
STEPPING = ("step", "data")
# Step times that ETA and the rates of a log row look back on.
_WINDOW = 20


class Clock:
    """Seconds by part; `part` is the one that time goes to, `turns` counts its changes."""

    def __init__(self, *, part: str = "other", now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._seconds = now, dict.fromkeys(PARTS, 0.0)
        self._since = now()
        self.part, self.turns = part, 0

    def turn(self, part: str) -> float:
        """Let time go to `part` from now on, and return the seconds of the part that ends here."""
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; the parts are {', '.join(PARTS)}")
        now = self._now()
        spent, self._since = now - self._since, now
        self._seconds[self.part] += spent
        self.part, self.turns = part, self.turns + 1
        return spent

    @contextlib.contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Let the time of the block go to `part`."""
        before = self.part
        self.turn(part)
        try:
            yield
        finally:
            self.turn(before)

    def move(self, seconds: float, *, source: str, target: str) -> None:
        """Count seconds of one part as those of another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part until now."""
        totals = dict(self._seconds)
        totals[self.part] += self._now() - self._since
        return totals


def goodput(seconds: dict[str, float]) -> float:
    """Return the share of useful time."""
    whole = sum(seconds.values())
    return seconds["step"] / whole if whole else 0.0


class Meter:
    """Step times, without the steps that compiled a new shape or followed an interruption."""

    def __init__(
        self,
        *,
        peak_flops: float,
        work: Callable[[Mapping[str, np.ndarray]], StepWork],
        flops: Callable[[StepWork], float],
    ) -> None:
        """Measure against `peak_flops`; `work` counts a host batch, `flops` what its step costs."""
        self._peak, self._work, self._flops = peak_flops, work, flops
        self._seen: set[tuple] = set()
        self._rows: list[tuple[float, int, int, float]] = []
        self._last = time.monotonic()

    def restart(self) -> None:
        """Begin the time of the next step here."""
        self._last = time.monotonic()

    def add(self, host: Mapping[str, np.ndarray], shapes: tuple) -> None:
        """Count the step of this host batch, which is done."""
        now, work = time.monotonic(), self._work(host)
        if shapes in self._seen:
            self._rows.append((now - self._last, work.tokens, work.pairs, self._flops(work)))
        self._seen.add(shapes)
        self._last = now

    def pace(self) -> float:
        """Return the mean seconds of the last steps."""
        recent = [seconds for seconds, *_ in self._rows[-_WINDOW:]]
        return float(np.mean(recent)) if recent else 0.0

    def median(self) -> float:
        """Return the median seconds of the last steps."""
        recent = [seconds for seconds, *_ in self._rows[-_WINDOW:]]
        return float(np.median(recent)) if recent else 0.0

    def rates(self, rows: int = _WINDOW) -> dict[str, float]:
        """Return rates over the last `rows` steps (0 for all), {} where there are none."""
        chosen = self._rows[-rows:] if rows else self._rows
        if not chosen:
            return {}
        seconds, tokens, pairs, flops = np.sum(np.asarray(chosen, np.float64), axis=0)
        return {
            "steps_per_second": len(chosen) / seconds,
            "tokens_per_second": tokens / seconds,
            "pairs_per_second": pairs / seconds,
            "mfu": mfu(flops, seconds=seconds, peak=self._peak),
        }

    def summary(self) -> dict[str, float]:
        """Return rates over all steps, 0 where there are none."""
        names = ("steps_per_second", "tokens_per_second", "pairs_per_second", "mfu")
        zeros = dict.fromkeys(names, 0.0)
        return {**zeros, **self.rates(rows=0)}
