"""Weights by their name on the Hugging Face Hub, from a hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.weights import hub

ROOT = Path(__file__).resolve().parent.parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.model": b"tokens",
    "pytorch_model.bin": b"numbers",
    "README.md": b"words",
}


class Hub(BaseHTTPRequestHandler):
    """One repository, org/tiny, whose branch v1.1 is COMMIT."""

    asked: list[str] = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(self.path)
        path, _, _ = self.path.partition("?")
        if path.startswith("/api/models/org/tiny/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in FILES.items()
            ]
            self._send(json.dumps(rows).encode())
        elif path in ("/api/models/org/tiny/revision/v1.1", "/api/models/org/tiny"):
            names = [{"rfilename": name} for name in FILES]
            about = {"id": "org/tiny", "sha": COMMIT, "siblings": names}
            self._send(json.dumps(about).encode())
        elif path.startswith("/org/tiny/resolve/") and path.rpartition("/")[2] in FILES:
            self._send(FILES[path.rpartition("/")[2]])
        elif path.startswith("/api/models/org/tiny"):
            self._send(b"{}", status=404, code="RevisionNotFound")
        elif "/org/tiny/" in path:
            self._send(b"{}", status=404, code="EntryNotFound")
        else:
            self._send(b"{}", status=401, code="RepoNotFound")

    def _send(self, data: bytes, *, status: int = 200, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{_oid(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def fetched(tmp_path: Path, *names: str) -> list[str]:
    """What `local_path` makes of names in a fresh process: a path, or the error's text."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "import sys\nfrom ltu_jax.core.errors import UserError\n"
        "from ltu_jax.weights.hub import local_path\n"
        "for name in sys.argv[1:]:\n"
        "    try: print('=', local_path(name, option='--weights'))\n"
        "    except UserError as error: print('!', error)\n"
    )
    try:
        ended = subprocess.run(
            [sys.executable, "-c", script, *names],
            env={
                **os.environ,
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_name_of_the_hub_becomes_a_folder_with_settings_tokenizer_and_weights(tmp_path):
    folder, file, no_revision, no_file, no_repo = fetched(
        tmp_path, "hf:org/tiny@v1.1", "hf:org/tiny@v1.1::tokenizer.model", "hf:org/tiny@v9",
        "hf:org/tiny@v1.1::absent.bin", "hf:org/none",
    )  # fmt: skip
    folder = Path(folder.removeprefix("= "))
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert there == {name: data for name, data in FILES.items() if name != "README.md"}
    assert Path(file.removeprefix("= ")).read_bytes() == b"tokens"
    for told, name in ((no_revision, "hf:org/tiny@v9"), (no_file, "absent.bin"),
                       (no_repo, "hf:org/none")):  # fmt: skip
        assert told.startswith("! --weights") and name in told


@pytest.mark.parametrize("wrong", ["hf:vicuna", "hf:", "hf:a/b/c", "hf:a/b@"])
def test_a_name_of_another_form_is_refused(wrong):
    with pytest.raises(UserError, match=wrong):
        hub.local_path(wrong, option="--weights")


def test_a_local_path_stays_one():
    assert hub.local_path("weights/a", option="--weights") == Path("weights/a")
