"""The process around the application: sockets, slow senders, and an end that lets answers end."""

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ltu_jax.core.errors import UserError, spell
from ltu_jax.serving.http_app import HttpApp

_HEAD_SECONDS = 10.0  # in which the head of a request has to come


class _Protocol(H11Protocol):
    """HTTP/1.1 that drops who does not finish the head of a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._head_is_begun():
            if self.cycle is not None:  # it is whole
                self._stop_timer()
        elif self._timer is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _head_is_begun(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self._head_is_begun():
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn's server without its signals: `run` has its own; and without its exits."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        except SystemExit:  # the application could not begin, and knows why
            self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UserError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.getaddrinfo(host, port, family)  # create_server hides that a name is unknown
        made = socket.create_server((host, port), family=family, backlog=512)
    except socket.gaierror as error:
        raise UserError(
            f"{spell('host', host)}: {error.strerror}; give an address of this machine"
        ) from None
    except OSError as error:
        raise UserError(
            f"{spell('port', port)} of {host}: {error.strerror}; choose another"
        ) from None
    made.setblocking(False)
    return made


def run(app: HttpApp, *, listener: socket.socket) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C; a second one is faster. Then end this process, status 0.

    Raises:
        UserError: it did not get ready.
    """
    # In a context of its own: errors name fields of requests there, not options of this command.
    contextvars.Context().run(asyncio.run, _until_signal(app, listener))
    if app.failure:
        raise UserError(f"the server could not get ready: {app.failure}; its log says where")
    # Nobody waits for what threads may still compute: programs, or a clip whose sender is told.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _until_signal(app: HttpApp, listener: socket.socket) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    await serve(app, listener, stop=stop, hurry=hurry)


async def serve(
    app: HttpApp, listener: socket.socket, *, stop: asyncio.Event, hurry: asyncio.Event
) -> None:
    """Serve until `stop`; then let running answers end, until `hurry`."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would tell of paths
    server = _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
        )
    )

    async def end() -> None:
        await stop.wait()
        await app.drain(hurry)
        server.should_exit = True

    app.on_failure = stop.set
    ending = asyncio.ensure_future(end())
    await server.serve(sockets=[listener])
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
