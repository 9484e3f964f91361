"""Bodies of requests, read with limits while they arrive, and kept in memory only."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from ltu_jax.core.errors import brief
from ltu_jax.serving.api_error import ApiError
from ltu_jax.serving.server_settings import ServerSettings

_GRACE = 10.0  # seconds beside what the slowest pace allows
# A sender that is refused is listened to a little, and nothing of it kept: a connection that is
# closed while it sends takes the refusal with it.
_LINGER_SECONDS = 2.0
_MOST_PARTS = 64
_LONGEST_FIELD = 1 << 20


class ClientGone(Exception):
    """The client closed the connection: nobody waits for an answer."""


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 413 beyond `most_body`, known from its header or while it comes; 408 from a
            sender that stops, or is slower than `slowest`.
        ClientGone: it closed the connection.
    """
    most, stated = settings.most_body, request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    loop = asyncio.get_running_loop()
    begun, parts, size = loop.time(), [], 0
    while True:
        left = begun + _GRACE + size / settings.slowest - loop.time()
        try:
            async with asyncio.timeout(min(settings.idle, left)):
                message = await request.receive()
        except TimeoutError:
            raise ApiError(
                408, "the body comes too slowly", code="slow_body",
                headers={"x-should-retry": "false"},
            ) from None  # fmt: skip
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            parts.clear()  # the error holds this frame
            raise _too_large(most)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most:,} bytes", code="body_too_large")


class Incoming:
    """What a request sends (`receive` of ASGI), and whether `more` of its body is to come."""

    def __init__(self, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]]):
        headers = dict(scope["headers"])
        self._receive = receive
        self.more = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        self._waits = b"expect" in headers  # it sends nothing before it is told to

    async def __call__(self) -> Any:
        self._waits = False
        message = await self._receive()
        self.more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def linger(self, *, most: int) -> None:
        """Read on for a little, up to `most` bytes, and keep nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self.more and not self._waits and most > 0:
                    most -= len((await self()).get("body", b""))


async def watched(request: Request, work: Awaitable[Any]) -> Any:
    """Return what `work` gives; end it where the client goes away.

    Raises:
        ClientGone: it did.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- JSON -----------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body.

    Raises:
        ApiError: it is none.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(body.decode(), parse_constant=refuse)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:  # of UTF-8 and JSON; without the text, which may be long
        reason = getattr(error, "msg", None) or getattr(error, "reason", None) or "not JSON"
        raise ApiError(400, f"the body is no JSON: {reason}", code="invalid_json") from None


# --- forms ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Form:
    """A multipart form: values of its fields, and its files' bytes, whose names are not kept."""

    fields: dict[str, list[str]]
    files: dict[str, list[bytes]]


def parse_form(content_type: str | None, body: bytes) -> Form:
    """Return the parts of a multipart form.

    Raises:
        ApiError: it is none, or has too many parts.
    """
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(
            400, f"the body is {brief(content_type)}; send multipart/form-data",
            code="invalid_content_type",
        )  # fmt: skip
    collector = _FormCollector()
    try:
        parser = MultipartParser(options[b"boundary"], collector.callbacks())
        parser.write(body)
        parser.finalize()
    except ApiError:
        raise
    except Exception as error:  # python-multipart has several, none of which is the server's fault
        raise ApiError(
            400, f"the form cannot be read ({type(error).__name__})", code="invalid_form"
        ) from None
    if not collector.complete:
        raise ApiError(400, "the form is cut off", code="invalid_form")
    return collector.form()


class _FormCollector:
    """Takes what the parser finds."""

    def __init__(self):
        self.complete = False
        self._parts: list[tuple[dict[bytes, bytes], list[bytes]]] = []
        self._name, self._value = b"", b""

    def callbacks(self) -> dict[str, Callable]:
        return {
            "on_part_begin": self._part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _part(self) -> None:
        if len(self._parts) >= _MOST_PARTS:
            raise ApiError(400, f"the form has more than {_MOST_PARTS} parts", code="invalid_form")
        self._parts.append(({}, []))

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        self._parts[-1][0][self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1][1].append(data[start:end])

    def _end(self) -> None:
        self.complete = True

    def form(self) -> Form:
        fields: dict[str, list[str]] = {}
        files: dict[str, list[bytes]] = {}
        for headers, pieces in self._parts:
            _, options = parse_options_header(headers.get(b"content-disposition", b""))
            name = options.get(b"name", b"").decode("latin-1")[:200]
            if not name:
                raise ApiError(400, "a part of the form has no name", code="invalid_form")
            content = b"".join(pieces)
            if b"filename" in options:
                files.setdefault(name, []).append(content)
                continue
            try:
                if len(content) > _LONGEST_FIELD:
                    raise ValueError
                fields.setdefault(name, []).append(content.decode())
            except ValueError:
                raise ApiError(
                    400, f"{name}: is no UTF-8 text of at most 1 MiB", param=name,
                    code="invalid_value",
                ) from None  # fmt: skip
        return Form(fields=fields, files=files)
