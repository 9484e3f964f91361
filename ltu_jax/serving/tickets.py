"""A request on its way: its events go from the engine's thread to a thread or an asyncio loop."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from ltu_jax.serving.engine_types import Event, Failed, Finished


class Ticket:
    """The reader's end of a request, and the engine's: `put`."""

    def __init__(self, *, wake: Callable[[], None]):
        """Call `wake` when the request is cancelled."""
        self._wake_engine = wake
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._listener: Callable[[], None] | None = None
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Tell whether the reader wants no more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the answer; see `AnswerTicket`."""
        self._cancelled.set()
        self._wake_engine()

    def put(self, *events: Event) -> None:
        """Add events, in the engine's thread."""
        with self._changed:
            self._events.extend(events)
            self._changed.notify_all()
            if self._listener is not None:
                self._listener()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events up to the last; see `AnswerTicket`."""
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._events, timeout):
                    raise TimeoutError(f"no event in {timeout} s")
                event = self._events.popleft()
            yield event
            if isinstance(event, Finished | Failed):
                return

    async def stream(self) -> AsyncIterator[Event]:
        """Yield events up to the last, without blocking the loop; see `AnswerTicket`."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(news.set)

        with self._changed:
            self._listener = tell
        try:
            while True:
                news.clear()
                with self._changed:
                    ready, self._events = self._events, deque()
                for event in ready:
                    yield event
                    if isinstance(event, Finished | Failed):
                        return
                if not ready:
                    await news.wait()
        finally:
            with self._changed:
                self._listener = None
