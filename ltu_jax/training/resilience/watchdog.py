"""End a run that stands still, and say where it stood.

A thread looks at the clock of the loop (`goodput.py`). It counts only time that it lived
through itself: a process that was stopped and goes on, or a machine that was busy, is no stall.
Should a library hold Python's lock so that this thread cannot run either, a timer outside of Python
(faulthandler's) dumps the stacks and ends the process with status 1.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import failures
from ltu_jax.training.resilience.goodput import STEPPING, Clock
from ltu_jax.training.resilience.guards import GuardConfig

# EX_SOFTWARE of sysexits.h: the stacks say where; the same command goes on from the checkpoint.
STALLED = 70
_LOOKS = 10  # within the shortest limit


class Watchdog:
    """Ends the process when neither a step nor another part of the loop comes to an end."""

    def __init__(
        self,
        clock: Clock,
        *,
        config: GuardConfig,
        median: Callable[[], float],
        report: Path,
        title: str,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Prepare to watch; entering the context starts it, unless `guards.stall_seconds` is 0.

        Args:
            clock: of the loop; every turn of it and every `beat` is a sign of life.
            config: the limits.
            median: seconds of a step, 0 while there is none.
            report: file for the stacks, besides stderr.
            title: of the run.
            end: how to end the process.
        """
        self._clock, self._config, self._median = clock, config, median
        self._report, self._title, self._end = report, title, end
        self._beats = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._config.stall_seconds:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Note that a step came to its end."""
        self._beats += 1

    def limit(self) -> float:
        """Return the limit in seconds without a sign of life for what the loop does now."""
        if self._clock.part not in STEPPING:
            return self._config.stall_busy_seconds
        return max(self._config.stall_seconds, self._config.stall_factor * self._median())

    def _watch(self) -> None:
        look = self._config.stall_seconds / _LOOKS
        hopeless = 2 * max(self._config.stall_busy_seconds, self.limit())
        seen, lived, last = None, 0.0, time.monotonic()
        try:
            while not self._closed.wait(look):
                faulthandler.dump_traceback_later(hopeless, exit=True, file=sys.__stderr__)
                now = time.monotonic()
                passed, last = min(now - last, 2 * look), now
                sign = (self._beats, self._clock.turns)
                lived = lived + passed if sign == seen else 0.0
                seen = sign
                if lived > self.limit():
                    self._fire(lived)
                    return
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _fire(self, seconds: float) -> None:
        message = (
            f"error: {self._title}: no sign of life for {seconds:.1f} s while in part "
            f"{self._clock.part!r} (steps take {self._median():.2f} s; guards.stall_factor, "
            f"guards.stall_seconds and guards.stall_busy_seconds are the limits). Stacks of all "
            f"threads follow and are in {self._report}; the same command goes on from the last "
            "checkpoint"
        )
        self._dump(sys.__stderr__, message)
        try:
            # By a local file: stacks need a descriptor, which a file of a bucket has not.
            with atomic_file(self._report) as path, path.open("w") as file:
                self._dump(file, message)
        except failures(self._report) as error:  # what stands still may be the disk itself
            print(f"error: {self._report}: {error}", file=sys.__stderr__, flush=True)
        finally:
            self._end(STALLED)

    def _dump(self, file: TextIO, message: str) -> None:
        print(message, file=file, flush=True)
        faulthandler.dump_traceback(file=file, all_threads=True)
