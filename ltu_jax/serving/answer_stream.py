"""Server-sent events: an answer while it is made, which a client may leave and take up again."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ltu_jax.serving.api_error import ApiError

_PING_SECONDS = 15.0
_SEND_SECONDS = 60.0  # a reader that takes nothing for so long is gone
_GRACE = 30.0  # seconds that an answer goes on, and is kept, without a reader
_MOST_KEPT = 4 << 20  # bytes of an answer that can be sent again
_MOST_STREAMS = 1_024
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(kw_only=True, eq=False)
class AnswerStream:
    """The events of one answer, the first of them numbered 1.

    `cancel` ends the making of the answer; whoever makes it then calls `end`.
    """

    id: str
    resumable: bool
    cancel: Callable[[], None]
    ended: bool = False
    readers: int = 0
    forgetting: asyncio.TimerHandle | None = None
    _events: list[bytes] = field(default_factory=list)
    _dropped: int = 0
    _bytes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, content: Any, *, event: str | None = None) -> None:
        """Append an event with JSON, or text as it is."""
        data = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        number = self._dropped + len(self._events) + 1
        name = f"event: {event}\n" if event else ""
        head = f"id: {number}\n" if self.resumable else ""
        self._events.append(f"{head}{name}data: {data}\n\n".encode())
        self._bytes += len(self._events[-1])
        while self._bytes > _MOST_KEPT:
            self._bytes -= len(self._events.pop(0))
            self._dropped += 1
        self._wake()

    def end(self) -> None:
        """Say that no event follows."""
        self.ended = True
        self._wake()

    def behind(self, number: int) -> bytes:
        """Return the events behind event `number`.

        Raises:
            ApiError: 404, there was no such event, or it is no longer kept.
        """
        if not self._dropped <= number <= self._dropped + len(self._events):
            raise ApiError(404, f"event {number} of this answer is not kept", code="not_kept")
        return b"".join(self._events[number - self._dropped :])

    @property
    def count(self) -> int:
        """Return how many events there were."""
        return self._dropped + len(self._events)

    async def more_than(self, number: int) -> None:
        """Wait for an event behind `number`, or the end."""
        while self.count <= number and not self.ended:
            await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(kw_only=True, eq=False)
class StreamRegistry:
    """The answers that are being streamed, and those that can be taken up again."""

    _streams: dict[str, AnswerStream] = field(default_factory=dict)

    def open(self, stream: AnswerStream) -> None:
        """Keep a stream.

        Raises:
            ApiError: 429, too many are kept.
        """
        if len(self._streams) >= _MOST_STREAMS:
            raise ApiError(429, "too many streams are open", headers={"retry-after": "1"})
        self._streams[stream.id] = stream

    def get(self, id: str) -> AnswerStream:
        """Return a stream.

        Raises:
            ApiError: 404.
        """
        if id not in self._streams:
            raise ApiError(404, f"there is no stream {id[:80]!r}", code="stream_not_found")
        return self._streams[id]

    def left(self, stream: AnswerStream) -> None:
        """Note that a reader has gone: its answer ends now, or after a while without another."""
        if not stream.resumable:
            self._streams.pop(stream.id, None)
            stream.cancel()
        elif not stream.readers:
            if stream.forgetting is not None:  # of a reader that left before, and came back
                stream.forgetting.cancel()
            loop = asyncio.get_running_loop()
            stream.forgetting = loop.call_later(_GRACE, self._forget, stream)

    def _forget(self, stream: AnswerStream) -> None:
        if not stream.readers and self._streams.pop(stream.id, None) is not None:
            stream.cancel()

    def cancel_all(self) -> None:
        """End every answer."""
        for stream in self._streams.values():
            stream.cancel()


@dataclass(frozen=True, kw_only=True)
class EventResponse:
    """The ASGI response that sends the events of a stream behind `number`, with pings between."""

    stream: AnswerStream
    registry: StreamRegistry
    number: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.stream.readers += 1
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
            await _sent(send, start)
            await self._events(send, gone)
        except TimeoutError:
            pass  # it no longer reads
        finally:
            gone.cancel()
            self.stream.readers -= 1
            self.registry.left(self.stream)

    async def _events(self, send: Any, gone: asyncio.Future) -> None:
        sent = self.number
        while not gone.done():
            news = asyncio.ensure_future(self.stream.more_than(sent))
            await asyncio.wait(
                {news, gone}, timeout=_PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            ping = not news.done()
            news.cancel()
            if gone.done():
                return
            if ping:
                await _sent(send, {"type": _BODY, "body": b": ping\n\n", "more_body": True})
                continue
            count, ended = self.stream.count, self.stream.ended
            body = self.stream.behind(sent)
            await _sent(send, {"type": _BODY, "body": body, "more_body": not ended})
            if ended:
                return
            sent = count


_BODY = "http.response.body"


async def _sent(send: Any, message: dict[str, Any]) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await send(message)


async def _disconnected(receive: Any) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
