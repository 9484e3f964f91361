"""Hashes, atomic output and JSON, for everything that is written to disk.

Whether a place may be written to is decided in `outputs`, how it is replaced in `staging`.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ltu_jax.core import outputs, staging
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
def atomic_dir(path: str | os.PathLike, maker: outputs.Maker) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `path` only if the block succeeds.

    What the same maker left at `path` is replaced as a whole; a link stays a link. A killed
    process leaves the old folder or the new one there, and what it leaves besides the next one
    clears away.

    Raises:
        UserError: something of somebody else is at `path`.
    """
    place = outputs.claim(path, maker)
    with staging.staging(place) as folder:
        new = folder / staging.NEW
        new.mkdir()
        yield new
        write_json(new / outputs.MARKER, outputs.signature(maker, outputs.files_below(new)))
        outputs.claim(path, maker)  # hours may have passed
        staging.swap(new, place)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, maker: outputs.Maker | None = None) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; it moves to `path` on success.

    Args:
        path: the file; a link stays a link.
        maker: who may replace a file that is there; None for one inside a folder of our own.

    Raises:
        UserError: a file of somebody else is at `path`.
    """
    place = outputs.follow(path) if maker is None else outputs.claim(path, maker)
    with staging.staging(place) as folder:
        new = folder / Path(path).name
        yield new
        os.replace(new, place)


def write_json(path: str | os.PathLike, value: Any, maker: outputs.Maker | None = None) -> None:
    """Write JSON with sorted keys and a final newline, as `atomic_file` does."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    with atomic_file(path, maker) as file:
        file.write_text(text, encoding="utf-8")


def inside(
    folder: str | os.PathLike,
    name: object,
    *,
    where: str | os.PathLike,
    owned: bool = False,
    error: type[UserError] = UserError,
) -> Path:
    """The file of `folder` that is called `name` in the file `where`; never one elsewhere.

    Args:
        folder: where it must lie.
        name: what was read; "/" separates folders.
        where: the file that names it, for messages.
        owned: the file is a person's own list of audio: there an absolute path says what it says,
            and a link in `folder` may lead out of it.
        error: the kind to raise.

    Raises:
        UserError: `name` is no relative name of a file below `folder`; nothing was opened.
    """
    problem = _no_name(name, absolute=owned)
    if problem is None:
        path = Path(folder) / str(name)
        if owned or _stays(path, Path(folder)):
            return path
        problem = "a link that leads out of the folder: put the file itself there"
    raise error(f"{where} is refused: it names {str(name)[:200]!r}, which is {problem}")


def _no_name(name: object, *, absolute: bool) -> str | None:
    """What is wrong with a name, by its spelling alone."""
    if not isinstance(name, str) or not name.strip():
        return "no name of a file"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "no name of a file (it has control characters)"
    if absolute and name.startswith("/"):
        return None
    if name.startswith("/") or PureWindowsPath(name).drive or "\\" in name:
        return "no name below the folder (it is absolute, or another system's)"
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts:
        return "not below the folder" + (": give the whole path, from / on" if absolute else "")
    return None


def _stays(path: Path, folder: Path) -> bool:
    """Whether links, if there are any, lead to where they may."""
    try:
        folder, path = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    if path.is_relative_to(folder):
        return True
    # Hugging Face's cache: snapshots/<revision>/<name> is a link to blobs/<hash> of the same model.
    snapshot = next((one for one in folder.parents if one.name == "snapshots"), None)
    return snapshot is not None and path.parent == snapshot.parent / "blobs"


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
