"""A real HTTP server on this machine that replies what a test tells it to."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


def ok(value: Any) -> Reply:
    return 200, {}, json.dumps(value).encode()


class Server:
    """`reply(number, path, body)` makes the reply to request `number`; all requests are kept."""

    def __init__(self, reply: Callable[[int, str, Any], Reply]):
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.stop = threading.Event()  # set when the test is over, for replies that hang
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append((self.path, dict(self.headers), body))
                    number = len(server.requests)
                status, headers, content = reply(number, self.path, body)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client may have read enough
                    self.wfile.write(content)
                self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextlib.contextmanager
def servers() -> Iterator[Callable[[Callable[[int, str, Any], Reply]], Server]]:
    """What starts servers; none outlives the block."""
    with contextlib.ExitStack() as started:

        def start(reply: Callable[[int, str, Any], Reply]) -> Server:
            server = Server(reply)
            started.callback(server.close)
            return server

        yield start
