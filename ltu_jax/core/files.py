"""Hashes, atomic output and JSON, for everything that is written to disk."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.text_files import read_text

_CHUNK = 1 << 22
_LARGEST_JSON = 64 << 20  # a tokenizer.json has 17 MB; parsed, JSON takes ten times its size


def sha256_file(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file, read in 4 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the name `path` only if the block succeeds.

    A folder already at `path` is replaced as a whole. A killed process leaves at most a folder
    whose name starts with `.tmp-`, never something that looks complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".tmp-old-{path.name}-", dir=path.parent))
            os.rename(path, old / path.name)
            os.rename(temporary, path)
            shutil.rmtree(old)
        else:
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; it moves to `path` on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".tmp-{path.name}-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        os.replace(Path(folder) / path.name, path)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON with sorted keys and a final newline, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".tmp-{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read_json(path: str | os.PathLike) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing, is not JSON, or is longer or nested deeper than any that is
            meant; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():  # a pipe or a device would never end
        raise UserError(f"{path} is not a file")
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise UserError(
            f"{path} has {size:,} bytes; at most {_LARGEST_JSON:,} are read as settings"
        )
    try:
        return json.loads(read_text(path, what="JSON"))
    except RecursionError:
        raise UserError(f"{path} is not valid JSON: it is nested too deep") from None
    except ValueError as error:  # not text, not JSON, or a number of thousands of digits
        raise UserError(f"{path} is not valid JSON: {error}") from None
