"""A client of chat completions that notes what comes when: one connection for each answer.

It talks to every server of OpenAI's protocol, and needs the standard library only.
"""

import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltu_jax.clients.endpoint import check_address, is_this_machine
from ltu_jax.core.errors import UserError

_EXCERPT = 200  # characters of a server's message
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class TimedAnswer:
    """What came of one request; times are seconds since it was sent.

    Attributes:
        status: of HTTP; 0 where no reply came.
        error: what went wrong; None where nothing did.
        id: of the answer, as the server names it.
        text: of the first choice.
        first: when its first text came; None where none did.
        last: when its last text came.
        total: when everything was there.
        tokens: of the answer, as the server counts them; where it does not, pieces of text.
        counted: the server counted them.
        finish_reason: of the first choice; "" where the answer did not come to its end.
        ltu: what a server of this project says of an answer; empty from others.
        left: the client closed the connection before the end.
    """

    status: int
    error: str | None
    id: str
    text: str
    first: float | None
    last: float | None
    total: float
    tokens: int
    counted: bool
    finish_reason: str
    ltu: Mapping[str, Any]
    left: bool

    @property
    def ended(self) -> bool:
        """Tell whether the answer came to its end."""
        return self.error is None and not self.left and bool(self.finish_reason)


@dataclass(kw_only=True)
class _Coming:
    """An answer on its way."""

    begun: float = field(default_factory=time.perf_counter)
    status: int = 0
    error: str | None = None
    id: str = ""
    texts: list[str] = field(default_factory=list)
    first: float | None = None
    last: float | None = None
    tokens: int | None = None
    finish_reason: str = ""
    ltu: dict[str, Any] = field(default_factory=dict)
    left: bool = False

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def take(self, content: Any) -> None:
        """Take a chunk of a stream, or a whole answer."""
        if not isinstance(content, dict):
            raise ValueError("a reply that is no JSON object")
        if content.get("error"):
            self.error = _message(content)
            return
        self.id = content.get("id") or self.id
        self.ltu |= content.get("ltu") or {}
        if usage := content.get("usage"):
            self.tokens = usage.get("completion_tokens")
        for choice in content.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            said = choice.get("delta") or choice.get("message") or {}
            if text := said.get("content") or said.get("reasoning_content"):
                self.texts.append(text)
                self.last = self.elapsed
                self.first = self.last if self.first is None else self.first
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def answer(self) -> TimedAnswer:
        broken = not (self.error or self.left or self.finish_reason)
        return TimedAnswer(
            status=self.status,
            error="the answer broke off" if broken else self.error,
            id=self.id,
            text="".join(self.texts),
            first=self.first,
            last=self.last,
            total=self.elapsed,
            tokens=len(self.texts) if self.tokens is None else self.tokens,
            counted=self.tokens is not None,
            finish_reason=self.finish_reason,
            ltu=self.ltu,
            left=self.left,
        )


@dataclass(frozen=True, kw_only=True)
class ChatService:
    """A server, by the address below which `/chat/completions` is.

    Attributes:
        url: up to "/v1"; an address without a path gets that.
        key: sent over https, or to this machine.
        timeout: seconds for a connection, and for the next bytes of a reply.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 600.0

    def __post_init__(self) -> None:
        check_address(self.url)
        parts = urllib.parse.urlsplit(self.url)
        if self.key and parts.scheme != "https" and not is_this_machine(parts.hostname):
            raise UserError(
                f"{self.url} is no https, and the key goes over https or to this machine only"
            )

    def models(self) -> list[str]:
        """Return the names of the models that are offered.

        Raises:
            UserError: the server cannot be reached, or does not say.
        """
        connection, status = self._connection(), 0
        try:
            connection.request("GET", f"{self._path}/models", headers=self._headers)
            reply = connection.getresponse()
            status = reply.status
            content = reply.read(_BLOCK * 16)
            found = json.loads(content) if status == 200 else None
            names = [one["id"] for one in found["data"]] if found else []
        except OSError as error:
            raise UserError(
                f"{self.url} cannot be reached ({error}); check the address and that it runs"
            ) from None
        except (http.client.HTTPException, ValueError, LookupError, TypeError):
            names = []
        finally:
            connection.close()
        if not names:
            told = f"status {status}" if status else "no reply of HTTP"
            raise UserError(
                f"{self.url} does not say which models it has ({told}"
                f"{', give --api-key-file' if status in (401, 403) else ''}); is it a server "
                "of OpenAI's protocol, and does its address end in /v1?"
            )
        return names

    def ask(self, body: bytes, *, leave_after: int | None = None) -> TimedAnswer:
        """Return what comes of a request of chat completions, a stream or whole.

        Args:
            body: its JSON.
            leave_after: close the connection behind so many events of a stream; 0: as soon as the
                request is sent.
        """
        connection, coming = self._connection(), _Coming()
        try:
            connection.connect()
            coming.begun = time.perf_counter()
            path = f"{self._path}/chat/completions"
            connection.request("POST", path, body, self._headers)
            if leave_after == 0:
                coming.left = True
                return coming.answer()
            reply = connection.getresponse()
            coming.status = reply.status
            if reply.status != 200:
                coming.error = self._refusal(reply.read(_BLOCK))
            elif "event-stream" in (reply.getheader("content-type") or ""):
                for number, event in enumerate(_events(reply), start=1):
                    coming.take(json.loads(event))
                    if number == leave_after:
                        coming.left = True
                        break
            else:
                coming.take(json.loads(reply.read()))
        except (OSError, http.client.HTTPException) as error:
            coming.error = f"{type(error).__name__}: {error}"[:_EXCERPT]
        except (ValueError, TypeError, AttributeError, LookupError):
            coming.error = "a reply of another shape than the protocol's"
        finally:
            connection.close()
        return coming.answer()

    @property
    def _path(self) -> str:
        return urllib.parse.urlsplit(self.url).path.rstrip("/") or "/v1"

    @property
    def _headers(self) -> dict[str, str | bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": "ltu_jax"}
        return headers | ({"Authorization": f"Bearer {self.key}".encode()} if self.key else {})

    def _connection(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self.timeout,
                context=ssl.create_default_context(),
            )  # fmt: skip
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout)

    def _refusal(self, content: bytes) -> str:
        try:
            told = _message(json.loads(content))
        except ValueError:
            told = content.decode(errors="replace")
        told = told.replace(self.key, "[key]") if self.key else told
        return "".join(sign if sign.isprintable() else " " for sign in told)[:_EXCERPT]


def _events(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each event up to "[DONE]", as soon as its line is there."""
    rest = b""
    while block := reply.read1(_BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            name, _, data = line.rstrip(b"\r").partition(b":")
            if name == b"data":
                if data.strip() == b"[DONE]":
                    return
                yield data


def _message(content: Any) -> str:
    """Return what the body of an error says."""
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(error)[:_EXCERPT]
