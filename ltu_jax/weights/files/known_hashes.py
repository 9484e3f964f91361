"""SHA-256 of large files, remembered on this machine while the files stay as they are.

Base weights are opened by every command and hashing 13 GB takes as long as reading them. A hash is
valid while size, inode, time of change and time of writing of its file are those of when it was
taken; `convert verify` reads every byte all the same.
"""

import contextlib
import os
import time
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file, write_json

_SMALLEST = 64 << 20  # bytes; what is smaller is hashed at once
_SETTLED = 2.0  # seconds since the last change, above the resolution of any file system's clock


def sha256(path: str | os.PathLike) -> str:
    """Return the hex SHA-256 of a file, without reading it where its hash is known and valid."""
    file = Path(path).resolve()
    before = _state(file)
    if before[0] < _SMALLEST:
        return sha256_file(file)
    known = _read().get(str(file))
    if isinstance(known, list) and known[:-1] == before:
        return str(known[-1])
    digest = sha256_file(file)
    if _state(file) == before and time.time() - max(before[1:3]) / 1e9 > _SETTLED:
        _remember(file, [*before, digest])
    return digest


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _store() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ltu_jax" / "hashes.json"


def _read() -> dict[str, object]:
    try:
        found = read_json(_store())
    except (UserError, OSError, RuntimeError):  # none yet, damaged, or nobody's home
        return {}
    return found if isinstance(found, dict) else {}


def _remember(file: Path, entry: list) -> None:
    # a machine that keeps nothing hashes again
    with contextlib.suppress(UserError, OSError, RuntimeError):
        there = {name: known for name, known in _read().items() if Path(name).is_file()}
        _store().parent.mkdir(parents=True, exist_ok=True)
        write_json(_store(), there | {str(file): entry})
