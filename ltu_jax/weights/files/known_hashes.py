"""SHA-256 of large files, remembered on this machine while the files stay as they are.

Base weights are opened by every command and hashing 13 GB takes as long as reading them. A hash is
valid while size, inode, time of change and time of writing of its file and 64 blocks of its bytes
are those of when it was taken: times and inodes alone are what a mounted bucket or a restored image
makes up. `convert verify` reads every byte all the same.
"""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.core.paths import user_cache

_SMALLEST = 64 << 20  # bytes; what is smaller is hashed at once
_SETTLED = 2.0  # seconds since the last change, above the resolution of any file system's clock
_BLOCKS, _BLOCK = 64, 4096  # blocks read at every opening, spread over the file; bytes of each


def sha256(path: str | os.PathLike) -> str:
    """Return the hex SHA-256 of a file, without reading it where its hash is known and valid."""
    file = Path(path).resolve()
    if file.stat().st_size < _SMALLEST:
        return sha256_file(file)
    before = _stamp(file)
    known = _read().get(str(file))
    if isinstance(known, list) and known[:-1] == before:
        return str(known[-1])
    digest = sha256_file(file)
    if _stamp(file) == before and time.time() - max(before[1:3]) / 1e9 > _SETTLED:
        _remember(file, [*before, digest])
    return digest


def _stamp(file: Path) -> list:
    """Return size, both times, inode, and the SHA-256 of blocks from the first byte to the last."""
    status = file.stat()
    last = max(0, status.st_size - _BLOCK)
    blocks = hashlib.sha256()
    with file.open("rb") as opened:
        for index in range(_BLOCKS):
            opened.seek(last * index // (_BLOCKS - 1))
            blocks.update(opened.read(_BLOCK))
    times = status.st_mtime_ns, status.st_ctime_ns
    return [status.st_size, *times, status.st_ino, blocks.hexdigest()]


def _store() -> Path:
    return user_cache() / "hashes.json"


def _read() -> dict[str, object]:
    try:
        content = read_json(_store())
    except (UserError, OSError, RuntimeError):  # none yet, damaged, or nobody's home
        return {}
    return content if isinstance(content, dict) else {}


def _remember(file: Path, entry: list) -> None:
    # a machine that keeps nothing hashes again
    with contextlib.suppress(UserError, OSError, RuntimeError):
        there = {name: known for name, known in _read().items() if Path(name).is_file()}
        _store().parent.mkdir(parents=True, exist_ok=True)
        write_json(_store(), there | {str(file): entry})
