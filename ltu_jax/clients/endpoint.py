"""A client of OpenAI-compatible servers: JSON posted, retried, bounded; the key is never shown.

The protocol is that of https://platform.openai.com/docs/api-reference, which vLLM, llama.cpp,
Ollama and many others speak. The key is read from an environment variable, and sent over https or
to this machine only; redirects are not followed, they could carry it elsewhere.
"""

import dataclasses
import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ltu_jax.core.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
# Of errors that another attempt may not meet.
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 120.0  # seconds between two attempts
_MOST_BYTES = 64 << 20  # 256 embeddings of 3,072 numbers take 17 MB
_LEAST_SECRET = 16  # characters; shorter keys ("EMPTY") are words that a reply may have
_EXCERPT = 300  # characters of a server's message in an error


class EndpointError(UserError):
    """A server that cannot be reached, refuses, or replies with something else than the API's.

    Attributes:
        status: of the server's answer; None without one.
    """

    def __init__(self, message: str, *, status: int | None = None):
        super().__init__(message)
        self.status = status


class PassingFailure(Exception):
    """A failure that may pass.

    Attributes:
        wait: seconds that the server asks to wait.
        at_work: whether the server may have done what was asked, and charge for it.
    """

    def __init__(self, what: str, *, wait: float | None = None, at_work: bool = False):
        super().__init__(what)
        self.wait, self.at_work = wait, at_work


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def split_spec(spec: str) -> tuple[str, str]:
    """Return (address, model) of "URL#model", as the command lines take it.

    Raises:
        UserError: no model, or an address that is not plain http(s)://host[:port]/path.
    """
    url, mark, model = spec.partition("#")
    if not mark or not model.strip():
        raise UserError(
            f"{_without_password(spec)!r} names no model; write URL#model, for example "
            "https://api.openai.com/v1#text-embedding-ada-002"
        )
    check_address(url)
    return url.rstrip("/"), model.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, by the address below which `/embeddings` and `/chat/completions` are.

    Attributes:
        url: up to and including "/v1".
        key_variable: the environment variable that holds the key; unset or empty sends none.
        timeout: seconds for a connection, for the first byte, and for the whole reply.
        attempts: in all, the first one included.
        sleep: how it waits between them.
    """

    url: str
    key_variable: str = KEY_VARIABLE
    timeout: float = 120.0
    attempts: int = 6
    sleep: Callable[[float], None] = dataclasses.field(
        default=time.sleep, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_address(self.url)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that the server replies to `body` at `url` + `path`.

        Timeouts, cut connections and statuses 408, 429, 500, 502, 503 and 504 are tried again
        after 1, 2, 4, ... s or what the server's Retry-After says.

        Raises:
            EndpointError: refused, out of attempts, a reply too large or not a JSON object.
        """
        url, wait = self.url.rstrip("/") + path, 1.0
        for attempt in range(1, self.attempts + 1):
            try:
                return self.post_once(path, body)
            except PassingFailure as failure:
                pause = wait if failure.wait is None else failure.wait
                if attempt == self.attempts or pause > _LONGEST_WAIT:
                    longer = f" and asks to wait {pause:g} s" if failure.wait else ""
                    raise EndpointError(
                        f"{url} {failure}{longer}, after {attempt} attempts; run the same command "
                        "again later: what was answered is kept in the cache"
                    ) from None
                self.sleep(min(pause, _LONGEST_WAIT))
                wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def post_all(
        self, path: str, bodies: Sequence[Mapping[str, Any]], *, workers: int
    ) -> Iterator[dict[str, Any]]:
        """Yield `post` of each body in order as replies come, `workers` at a time.

        Raises:
            EndpointError: as `post`; bodies that were not sent yet are not sent.
        """
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self.post, path, body) for body in bodies]
            try:
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()

    def post_once(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply as `post` does, after one attempt.

        Raises:
            PassingFailure: what `post` would try again.
            EndpointError: anything else.
        """
        url = self.url.rstrip("/") + path
        headers = {"Content-Type": "application/json", "User-Agent": "ltu_jax"}
        secret = self._key()
        if secret and self._may_send_key():
            headers["Authorization"] = f"Bearer {secret}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            opener = urllib.request.build_opener(_NoRedirect)
            with opener.open(request, timeout=self.timeout) as reply:
                content = self._read(reply, url=url, deadline=deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(url, error, secret=secret) from None
        except urllib.error.URLError as error:
            raise self._unreachable(url, error.reason) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._unreachable(url, error) from None
        if len(secret) >= _LEAST_SECRET:  # a server may send back what it got
            content = content.replace(secret.encode(), b"[key]")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            if content.lstrip().startswith(b"{"):  # some servers tell no length
                raise PassingFailure("replied with JSON that is cut off", at_work=True) from None
            answer = None
        if not isinstance(answer, dict):
            raise EndpointError(
                f"{url} replied with something else than a JSON object: "
                f"{_excerpt(content, secret=secret)!r}; is it an OpenAI-compatible server, and "
                "does the address end in /v1?",
                status=200,
            )
        return answer

    def _read(self, reply: http.client.HTTPResponse, *, url: str, deadline: float) -> bytes:
        blocks, size = [], 0
        while block := reply.read1(1 << 16):
            blocks.append(block)
            size += len(block)
            if size > _MOST_BYTES:
                raise EndpointError(
                    f"{url} replied with more than {_MOST_BYTES >> 20} MB; that is no reply of "
                    "this API, check the address",
                    status=200,
                )
            if time.monotonic() > deadline:
                raise TimeoutError
        if reply.length:  # promised by Content-Length, and did not come
            raise http.client.IncompleteRead(b"", reply.length)
        return b"".join(blocks)

    def _refusal(self, url: str, error: urllib.error.HTTPError, *, secret: str) -> Exception:
        """Return the error to raise for a status other than 200."""
        try:
            body = error.read(1 << 16)
        except (OSError, http.client.HTTPException):
            body = b""
        name = http.client.responses.get(error.code, "").strip()
        what = f"answered {error.code} {name}: {_excerpt(body, secret=secret)!r}"
        # OpenAI's 429 of an empty account never passes.
        if error.code in PASSING_STATUSES and b"insufficient_quota" not in body:
            return PassingFailure(what, wait=_seconds(error.headers.get("Retry-After")))
        advice = self._advice(error.code, secret=secret)
        return EndpointError(f"{url} {what}; {advice}", status=error.code)

    def _advice(self, status: int, *, secret: str) -> str:
        if status in (401, 403) and secret and not self._may_send_key():
            return f"the key in {self.key_variable} was not sent, it goes over https only"
        if status in (401, 403):
            return f"set {self.key_variable} to a key of this server"
        if 300 <= status < 400:
            return "redirects are not followed, give the final address"
        if status == 404:
            return "check the model's name and the address, which usually ends in /v1"
        if status == 429:
            return "the account has no quota left"
        return "check the model's name and what this server accepts"

    def _unreachable(self, url: str, reason: BaseException | str) -> Exception:
        """Return the error to raise when there is no reply; only what may pass is tried again."""
        passing = isinstance(reason, TimeoutError | http.client.HTTPException | ConnectionError)
        lasting = isinstance(reason, ConnectionRefusedError | socket.gaierror | ssl.SSLError)
        if passing and not lasting:
            what = "timed out" if isinstance(reason, TimeoutError) else "broke the connection"
            if isinstance(reason, TimeoutError):
                what += f" after {self.timeout:g} s"
            return PassingFailure(what, at_work=True)
        return EndpointError(
            f"{url} cannot be reached ({reason}); check the address and that the server runs"
        )

    def _key(self) -> str:
        secret = os.environ.get(self.key_variable, "").strip()
        if not (secret.isascii() and secret.isprintable()):
            # http.client would show it in its own error
            raise UserError(
                f"{self.key_variable} has characters that are in no key; set it again (its value "
                "is not shown)"
            )
        return secret

    def _may_send_key(self) -> bool:
        parts = urllib.parse.urlsplit(self.url)
        return parts.scheme == "https" or is_this_machine(parts.hostname or "")


def is_this_machine(host: str) -> bool:
    """Tell whether a name or address of a host is this machine, by its loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(url: str) -> None:
    """Require a plain address of a server.

    Raises:
        UserError: a user name or password in it, or anything but http(s)://host[:port]/path.
    """
    if "@" in url:
        raise UserError(
            f"{_without_password(url)!r} holds a user name or password; set {KEY_VARIABLE} instead"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#")
    except ValueError:  # brackets that do not close, or a port that is no number
        known = plain = False
    if not (known and plain):
        raise UserError(f"{url!r} is not an address; write http(s)://HOST[:PORT]/v1")


def _without_password(url: str) -> str:
    head, mark, tail = url.partition("://")
    return f"{head}{mark}...@{tail.rpartition('@')[2]}" if "@" in tail else url


def _excerpt(content: bytes, *, secret: str) -> str:
    """Return the beginning of a server's message, fit for a terminal and without the key."""
    text = content[: 1 << 16].decode("utf-8", errors="replace")
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    if secret:
        text = text.replace(secret, "[key]")
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "..."


def _seconds(header: str | None) -> float | None:
    """Return Retry-After in seconds; its other form, a date, is left to the usual waits."""
    value = (header or "").strip()
    return float(value) if value.isascii() and value.isdigit() else None
