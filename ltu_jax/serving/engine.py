"""Continuous batching: requests enter free slots while others are answered, and leave when done.

One thread talks to the device. It dispatches the next steps before it reads the tokens of the last
ones, so that the device does not wait for it: a row may be computed for some steps after its end,
which nobody reads. An answer is the one that the request gets alone.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ltu_jax.core.compilation import CompileCount
from ltu_jax.core.errors import UserError
from ltu_jax.core.values import whole
from ltu_jax.generation.loading import LoadedModel
from ltu_jax.generation.text_loading import LanguageModel
from ltu_jax.serving.admission import Admission
from ltu_jax.serving.engine_types import (
    EngineClosed,
    EngineRequest,
    EngineStats,
    FinishReason,
    QueueFull,
)
from ltu_jax.serving.running_row import RunningRow
from ltu_jax.serving.slot_programs import SlotPrograms
from ltu_jax.serving.slot_prompts import SlotPlace, SlotPrompts
from ltu_jax.serving.slot_sizes import SlotSizes, kv_bytes
from ltu_jax.serving.slot_state import Made
from ltu_jax.serving.tickets import Ticket

_MOST_ENTERING = 4  # prompts read between two dispatches of steps: others wait for them


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How an engine works.

    Attributes:
        sizes: of its slots and programs.
        queue: requests that may wait for a slot.
    """

    sizes: SlotSizes = SlotSizes()
    queue: int = 256

    def __post_init__(self) -> None:
        whole("queue", self.queue)


@dataclass(frozen=True, kw_only=True)
class _Entered:
    """A prompt that was read; its first token is on the device."""

    row: RunningRow
    token: Any
    logprobs: Any


@dataclass(frozen=True, kw_only=True)
class _Stepped:
    """Steps that were dispatched for the rows that then stood in these slots."""

    rows: Mapping[int, RunningRow]
    made: Made


class Engine:
    """An `AnswerEngine` over one model on one device."""

    def __init__(self, model: LoadedModel | LanguageModel, settings: EngineSettings | None = None):
        """Lay out the slots and start the thread; `warm` compiles.

        Raises:
            UserError: a model without tokenizer, or laid over several devices; no memory for the
                slots.
        """
        if model.data_parallel.mesh is not None:
            raise UserError(
                f"the engine answers on one device, and {model.path} is laid over "
                f"{model.data_parallel.mesh.size}; load it without mesh"
            )
        self._settings = settings or EngineSettings()
        self._programs = SlotPrograms(
            model=model.model, params=model.params, sizes=self._settings.sizes
        )
        self._admission = Admission.of(model, self._programs)
        self._compiled = CompileCount()
        self._warm_count: int | None = None
        # Guarded by `_changed`: what other threads see.
        self._changed = threading.Condition()
        self._waiting: deque[RunningRow] = deque()
        self._taking, self._closing = True, False
        self._failure: Exception | None = None
        self._counts: Counter[str] = Counter()
        # The engine thread's own; the lock is held for a turn, and by `warm`.
        self._turning = threading.Lock()
        self._rows: dict[int, RunningRow] = {}
        self._prompts = SlotPrompts(self._settings.sizes)
        self._pending: deque[_Entered | _Stepped] = deque()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # --- for every thread -------------------------------------------------------------------------

    def submit(self, request: EngineRequest) -> Ticket:
        """Take a request; see `AnswerEngine`."""
        self._require_open()
        ticket = Ticket(wake=self._wake)
        row = self._admission.row(request, ticket=ticket)
        with self._changed:
            self._require_open()
            if len(self._waiting) >= self._settings.queue:
                raise QueueFull(
                    f"{len(self._waiting)} requests wait already, the most that may; ask again "
                    "later",
                    retry_after=1.0,
                )
            self._waiting.append(row)
            self._counts["submitted"] += 1
            self._changed.notify_all()
        return ticket

    def stats(self) -> EngineStats:
        """Return counts; see `AnswerEngine`."""
        sizes = self._settings.sizes
        warm = self._warm_count
        with self._changed:
            counts = self._counts
            return EngineStats(
                ready=warm is not None and self._taking,
                slots=sizes.slots,
                slot_tokens=sizes.slot_tokens,
                busy=len(self._rows),
                queued=len(self._waiting),
                submitted=counts["submitted"],
                finished={str(reason): counts[f"finished.{reason}"] for reason in FinishReason},
                failed=counts["failed"],
                prompt_tokens=counts["prompt_tokens"],
                completion_tokens=counts["completion_tokens"],
                dispatches=counts["dispatches"],
                compiled=0 if warm is None else self._compiled.count - warm,
                kv_bytes=kv_bytes(
                    self._programs.llama, sizes, itemsize=self._programs.state.keys.dtype.itemsize
                ),
            )

    def warm(self) -> None:
        """Compile every program; see `AnswerEngine`.

        Raises:
            UserError: requests are being answered.
        """
        with self._turning:
            if self._rows or self._pending:
                raise UserError("warm: requests are being answered; warm the engine before them")
            self._programs.warm()
            self._admission.grammars.prepare()
            self._warm_count = self._compiled.count

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests and wait for the end of those there are; see `AnswerEngine`."""
        with self._changed:
            self._taking = False
            self._changed.notify_all()
            return self._changed.wait_for(self._idle, timeout)

    def close(self) -> None:
        """Cancel what runs, and end the thread; see `AnswerEngine`."""
        with self._changed:
            first = not self._closing
            self._taking, self._closing = False, True
            self._changed.notify_all()
        self._thread.join()
        if first:
            self._compiled.close()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _idle(self) -> bool:
        return not (self._waiting or self._rows or self._pending)

    def _require_open(self) -> None:
        if self._failure is not None:
            raise EngineClosed(f"the engine failed and takes no requests: {self._failure}")
        if not self._taking:
            raise EngineClosed("the engine is closing and takes no more requests")

    # --- the engine's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                with self._turning:
                    self._turn()
        except Exception as error:  # a failed program: every request learns of it
            self._fail(error)
        finally:
            self._end_all()

    def _wait(self) -> bool:
        """Wait for something to do; tells whether to go on."""
        with self._changed:
            self._changed.notify_all()  # whoever waits for an idle engine
            self._changed.wait_for(lambda: self._closing or not self._idle())
            return not self._closing

    def _turn(self) -> None:
        self._drop_unwanted()
        self._enter_waiting()
        if self._needs_tokens():
            self._read_to(0)
        self._move_to_front()
        # While the newest steps are computed, what was dispatched before them is read.
        self._read_to(1 if self._step() else 0)

    def _needs_tokens(self) -> bool:
        """Tell whether all tokens have to be read before the next steps are dispatched.

        A grammar has to know the last token before it allows the next. On a CPU the steps would
        take the cores from those who bring a first token to its reader.
        """
        if self._programs.on_cpu and any(isinstance(one, _Entered) for one in self._pending):
            return True
        return any(row.matcher is not None for row in self._rows.values())

    def _drop_unwanted(self) -> None:
        """End what was cancelled or is late, queued or running."""
        now = time.monotonic()
        with self._changed:
            waiting = list(self._waiting)
        for row in [*waiting, *self._rows.values()]:
            if reason := row.unwanted(now):
                row.end(reason)
        self._forget_ended()

    def _forget_ended(self) -> None:
        """Free the slots of rows that have ended, and count them."""
        with self._changed:
            ended = [row for row in (*self._waiting, *self._rows.values()) if row.ended]
            if not ended:
                return
            self._waiting = deque(row for row in self._waiting if not row.ended)
            self._rows = {slot: row for slot, row in self._rows.items() if not row.ended}
            for row in ended:
                self._counts[f"finished.{row.reason}" if row.reason else "failed"] += 1
                self._counts["completion_tokens"] += len(row.tokens)
            self._changed.notify_all()

    def _enter_waiting(self) -> None:
        """Read the prompts of waiting requests into free slots, a few in one turn.

        While nobody is being answered, nobody waits for it: then all that there is room for.
        """
        slots = self._settings.sizes.slots
        for _ in range(_MOST_ENTERING if self._rows else slots):
            free = [slot for slot in range(slots) if slot not in self._rows]
            with self._changed:
                if not free or not self._waiting:
                    return
                row = self._waiting.popleft()
                tier = self._settings.sizes.tier(len(self._rows) + 1)
                place = self._prompts.place(row, free=free, tier=tier)
                self._rows[place.slot] = row
                self._counts["prompt_tokens"] += len(row.program.ids)
            allowed = _allowed(row)
            if not row.ended:
                self._enter(row, place, allowed)

    def _enter(self, row: RunningRow, place: SlotPlace, allowed: np.ndarray | None) -> None:
        """Read a prompt, but for what of it stands in a slot, and choose its first token."""
        if place.keep_at is not None:
            places = self._prompts.places(place.slot)
            self._programs.move(place.slot, place.keep_at, places=places)
            self._prompts.moved(place.slot, place.keep_at)
        beginning = place.beginning
        row.enter(time.monotonic(), cached=0 if beginning is None else beginning.places)
        token, logprobs = self._programs.enter(
            row.program, row.features, slot=place.slot, allowed=allowed, beginning=beginning
        )
        self._prompts.entered(place.slot, row)
        self._pending.append(_Entered(row=row, token=token, logprobs=logprobs))

    def _move_to_front(self) -> None:
        """Let few rows stand in few slots, so that a smaller program computes them."""
        sizes = self._settings.sizes
        if not self._rows or self._waiting:
            return
        tier = sizes.tier(len(self._rows))
        for source in [slot for slot in self._rows if slot >= tier]:
            target = self._prompts.oldest([slot for slot in range(tier) if slot not in self._rows])
            self._programs.move(source, target, places=self._rows[source].places)
            self._prompts.moved(source, target)
            with self._changed:
                self._rows[target] = self._rows.pop(source)

    def _step(self) -> bool:
        """Dispatch steps for all rows that still want some; tells whether there were any."""
        sizes = self._settings.sizes
        rows = {slot: row for slot, row in self._rows.items() if row.wants_steps}
        allowed = {slot: _allowed(row) for slot, row in rows.items() if row.matcher is not None}
        rows = {slot: row for slot, row in rows.items() if not row.ended}
        if not rows:
            return False
        allowed = {slot: bits for slot, bits in allowed.items() if slot in rows}
        steps = 1 if allowed else min(sizes.steps, max(row.steps_left for row in rows.values()))
        lookup = sizes.drafts > 0 and any(row.program.lookup for row in rows.values())
        for row in rows.values():
            row.promise(steps, drafts=sizes.drafts if lookup and row.program.lookup else 0)
        made = self._programs.advance(
            np.isin(np.arange(sizes.slots), list(rows)),
            allowed,
            rows=max(rows) + 1,
            places=max(row.places for row in rows.values()),
            steps=steps,
            lookup=lookup,
        )
        self._pending.append(_Stepped(rows=rows, made=made))
        with self._changed:
            self._counts["dispatches"] += 1
        return True

    def _read_to(self, left: int) -> None:
        """Read what was dispatched, oldest first, but the newest `left`."""
        while len(self._pending) > left:
            oldest = self._pending[0]
            if isinstance(oldest, _Entered):
                self._read_entered(oldest)
            else:
                self._read_steps(oldest)
            self._pending.popleft()
            self._forget_ended()

    def _read_entered(self, entered: _Entered) -> None:
        row, token = entered.row, int(entered.token)
        row.settle()
        if not row.ended:
            self._take(row, token, jax.device_get(entered.logprobs), place=0)

    def _read_steps(self, stepped: _Stepped) -> None:
        tokens = np.asarray(stepped.made.tokens)
        wanted = any(row.program.logprobs and not row.ended for row in stepped.rows.values())
        logprobs = jax.device_get(stepped.made.logprobs) if wanted else None
        for slot, row in stepped.rows.items():
            row.settle()
            for step in range(len(tokens)):
                for token in tokens[step, slot]:
                    if token >= 0 and not row.ended:
                        self._take(row, int(token), logprobs, place=(step, slot))

    def _take(self, row: RunningRow, token: int, logprobs: Any, *, place: Any) -> None:
        try:
            row.take(token, logprobs, place=place)
        except UserError as error:  # of its grammar: the others go on
            row.fail(error)

    # --- the end ----------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure, self._taking = error, False
            rows = [*self._waiting, *self._rows.values()]
        for row in rows:
            row.fail(error)
        self._forget_ended()

    def _end_all(self) -> None:
        with self._changed:
            rows = [*self._waiting, *self._rows.values()]
        for row in rows:
            row.end(FinishReason.CANCELLED)
        self._forget_ended()
        with self._changed:
            self._pending.clear()
            self._changed.notify_all()  # whoever drains: it is idle now


def _allowed(row: RunningRow) -> np.ndarray | None:
    """Return what a row's grammar allows next; one that gives up fails its row alone."""
    try:
        return row.allowed()
    except UserError as error:
        row.fail(error)
        return None
