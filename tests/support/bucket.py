"""A bucket on loopback: the emulator `gcp-storage-emulator` in memory, with preconditions.

The emulator ignores `ifGenerationMatch`, on which every lock in a bucket stands. Here a request is
answered under one lock, so that a check and the write behind it are one act, as in GCS.
"""

import contextlib
import functools
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus, server
from pathlib import Path
from urllib.parse import unquote

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import HANDLERS, Request, RequestHandler, Response, Router
from gcp_storage_emulator.storage import Storage

NAME = "test-bucket"


class Memory(Storage):
    """A store whose index needs no file."""

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)
        self.answering = threading.RLock()
        self.delay = 0.0  # seconds that an answer takes, as those of a bucket do

    def _write_config_to_file(self) -> None:
        pass

    def names(self) -> list[str]:
        """List the objects of the bucket."""
        return sorted(self.objects.get(NAME, {}))

    def content(self, name: str) -> bytes:
        """Return the content of an object."""
        return self.get_file(NAME, name)

    def take(self, folder: Path, name: str) -> str:
        """Copy the files of a local folder to `name`; returns the address."""
        for path in folder.rglob("*"):
            if path.is_file():
                target = f"{name}/{path.relative_to(folder).as_posix()}"
                content = path.read_bytes()
                about = objects._make_object_resource("", NAME, target, "", str(len(content)))
                self.create_file(NAME, target, content, objects._checksums(content, about))
        return f"gs://{NAME}/{name}"

    def vanish(self) -> None:
        """Take the bucket away, with all that is in it."""
        self.buckets.clear()
        self.objects.clear()

    def generation(self, bucket: str, name: str | None) -> int:
        """Return the generation of an object, 0 where there is none."""
        try:
            return int(self.get_file_obj(bucket, name)["generation"])
        except NotFound:
            return 0


class _Router(Router):
    """Answers one request at a time, and only where its preconditions hold."""

    def handle(self, method: str) -> None:
        request = Request(self._request_handler, method)
        storage = self._request_handler.storage
        request.data  # read from the socket before others wait  # noqa: B018
        time.sleep(storage.delay)
        with storage.answering:
            status, generation = self._precondition(request, storage)
            if status is None:
                self._answer(request, generation)
                return
        response = Response(self._request_handler)
        response.status = status
        response.close()

    def _answer(self, request: Request, generation: int) -> None:
        response = Response(self._request_handler)
        response["x-goog-generation"] = str(generation)
        for pattern, handlers in HANDLERS:
            match = _compiled(pattern).fullmatch(request.path)
            if match and request.method in handlers:
                request.set_match(match)
                handlers[request.method](request, response, self._request_handler.storage)
                break
        else:
            response.status = HTTPStatus.NOT_IMPLEMENTED
        response.close()

    @staticmethod
    def _precondition(request: Request, storage: Memory) -> tuple[HTTPStatus | None, int]:
        match = _compiled(r".*/b/(?P<bucket>[-.\w]+)/o(/(?P<name>.+))?").fullmatch(request.path)
        if match is None:
            return None, 0
        name = unquote(match["name"]) if match["name"] else request.query.get("name", [None])[0]
        if name is None and isinstance(request.data, dict):
            name = request.data.get("meta", request.data).get("name")
        there = storage.generation(match["bucket"], name) if name else 0
        wanted = request.query.get("ifGenerationMatch")
        if wanted and int(wanted[0]) != there:
            return HTTPStatus.PRECONDITION_FAILED, there
        unwanted = request.query.get("ifGenerationNotMatch")
        if unwanted and int(unwanted[0]) == there:
            reading = request.method == "GET"
            return HTTPStatus.NOT_MODIFIED if reading else HTTPStatus.PRECONDITION_FAILED, there
        return None, there


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


class _Handler(RequestHandler):
    """Hands every request to `_Router`."""

    def _route(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed
            _Router(self).handle(self.command)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _route


class _Server(server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed."""


@contextlib.contextmanager
def served() -> Iterator[Memory]:
    """Serve an empty bucket, and let every client of this process and its children use it."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)  # of absent objects
    storage = Memory()
    buckets.create_bucket(NAME, storage)
    httpd = _Server(("127.0.0.1", 0), functools.partial(_Handler, storage))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with environment(f"http://127.0.0.1:{httpd.server_port}"):
        try:
            yield storage
        finally:
            httpd.shutdown()
            httpd.server_close()


@contextlib.contextmanager
def environment(address: str) -> Iterator[None]:
    """Set what gcsfs and TensorStore read of an emulator's address within the block."""
    values = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
