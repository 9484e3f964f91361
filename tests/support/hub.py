"""A Hugging Face Hub on loopback: folders of this machine as repositories."""

import contextlib
import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants


class Hub:
    """Repositories whose branches main and v1.1 are one commit each."""

    def __init__(self, folders: Mapping[str, Path], *, gated: frozenset[str] = frozenset()) -> None:
        self.folders, self.gated = folders, gated
        self.asked: list[str] = []
        handler = functools.partial(_Handler, self)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        """Return what HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, repo: str) -> str:
        """Return the commit of a repository."""
        return hashlib.sha1(repo.encode()).hexdigest()

    def fetched(self) -> list[str]:
        """List the names of the files that were asked for."""
        resolved = [path for path in self.asked if "/resolve/" in path]
        return sorted({path.rpartition("/")[2] for path in resolved})

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        about = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo, kind, rest = "/".join(parts[:2]), *parts[2:3], parts[3:]
        self._commit = self.hub.commit(repo)
        if repo not in self.hub.folders:
            self._send(b"{}", status=401, code="RepoNotFound")
        elif kind in ("revision", "tree") and rest[0] not in ("main", "v1.1", self._commit):
            self._send(b"{}", status=404, code="RevisionNotFound")
        elif about:
            self._send(self._described(repo, tree=kind == "tree"))
        elif repo in self.hub.gated:
            self._send(b"{}", status=403, code="GatedRepo")
        elif (file := self.hub.folders[repo] / "/".join(rest[1:])).is_file():
            self._send(file.read_bytes())
        else:
            self._send(b"{}", status=404, code="EntryNotFound")

    def _described(self, repo: str, *, tree: bool) -> bytes:
        folder = self.hub.folders[repo]
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        if not tree:
            names = [{"rfilename": str(name)} for name in files]
            told = {"id": repo, "sha": self._commit, "siblings": names}
            return json.dumps(told).encode()
        rows = [(str(name), path.read_bytes()) for name, path in files.items()]
        return json.dumps(
            [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in rows
            ]
        ).encode()

    def _send(self, data: bytes, *, status: int = 200, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{_oid(data)}"')
        self.send_header("X-Repo-Commit", self._commit)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def served(
    folders: Mapping[str, Path], *, cache: Path, gated: frozenset[str] = frozenset()
) -> Iterator[Hub]:
    """Serve repositories, and let the library in this process use them and an empty cache."""
    hub = Hub(folders, gated=gated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        try:
            yield hub
        finally:
            hub.close()
