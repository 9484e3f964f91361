"""Hashes, atomic output and JSON, for everything that is written to disk.

`outputs` decides whether a place may be written to, `staging` replaces it.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ltu_jax.core import outputs, staging
from ltu_jax.core.bucket_copies import publish
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import as_path, is_remote, size_of, upload
from ltu_jax.core.text_files import read_text

_CHUNK = 1 << 22
_LARGEST_JSON = 64 << 20  # a tokenizer.json has 17 MB; parsed, JSON takes ten times its size


def sha256_file(path: str | os.PathLike) -> str:
    """Return the hex SHA-256 of a file, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    with as_path(path).open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike, maker: outputs.Maker) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `path` if the block succeeds.

    An older output of the same maker is replaced as a whole; a link stays a link. A killed process
    leaves the old folder or the new one at `path`; the next process clears its temporary folder.
    A folder of a bucket is written in TMPDIR first (`bucket_copies.publish`).

    Raises:
        UserError: `path` holds something that is not of this maker.
    """
    place = outputs.claim(path, maker)
    with _working_folder(place) as folder:
        new = folder / staging.NEW
        new.mkdir()
        yield new
        write_json(new / outputs.MARKER, outputs.signature(maker, outputs.files_below(new)))
        outputs.claim(path, maker)  # hours may have passed
        if is_remote(place):
            publish(new, place, marker=outputs.MARKER)
        else:
            staging.swap(new, place)


@contextlib.contextmanager
def _working_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside a place; in TMPDIR, for this user alone, of one in a bucket."""
    remote = is_remote(place)
    with staging.staging(Path(tempfile.gettempdir(), place.name) if remote else place) as folder:
        if remote:
            folder.chmod(0o700)
        yield folder


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, maker: outputs.Maker | None = None) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; it moves to `path` on success.

    Args:
        path: the file; a link stays a link. In a bucket it is written in one act.
        maker: who may replace an existing file; None inside a folder of our own.

    Raises:
        UserError: the file at `path` is not of this maker.
    """
    place = outputs.follow(path) if maker is None else outputs.claim(path, maker)
    with _working_folder(place) as folder:
        new = folder / as_path(path).name
        yield new
        if is_remote(place):
            upload(new, place)
        else:
            os.replace(new, place)


def write_json(path: str | os.PathLike, value: Any, maker: outputs.Maker | None = None) -> None:
    """Write JSON by `atomic_file`, with sorted keys and a final newline."""
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
    """Return the path of the file `name` below `folder`; never of one elsewhere.

    Args:
        folder: where the file must lie.
        name: a name that was read from `where`; "/" separates folders.
        where: the file that has the name, for messages.
        owned: `where` is a person's own list of audio: it may have absolute paths, and links in
            `folder` may lead out of it.
        error: the kind to raise.

    Raises:
        UserError: `name` is no relative name of a file below `folder`; nothing was opened.
    """
    problem = _name_problem(name, absolute=owned)
    if problem is None:
        path = as_path(folder) / str(name)
        if owned or is_remote(path) or _stays(path, Path(folder)):
            return path
        problem = "a link that leads out of the folder: put the file itself there"
    raise error(f"{where} is refused: it names {str(name)[:200]!r}, which is {problem}")


def _name_problem(name: object, *, absolute: bool) -> str | None:
    """Say what is wrong with the spelling of a name; None if nothing is."""
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
    """Tell whether the links of a path, if there are any, stay in the folder."""
    try:
        folder, path = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    if path.is_relative_to(folder):
        return True
    # Hugging Face's cache: snapshots/<revision>/<name> is a link to blobs/<hash> of the same model.
    snapshot = next((parent for parent in folder.parents if parent.name == "snapshots"), None)
    return snapshot is not None and path.parent == snapshot.parent / "blobs"


def read_json(path: str | os.PathLike) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing, is not JSON, or is too long or nested too deep for settings.
    """
    path = as_path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():  # a pipe or a device would never end
        raise UserError(f"{path} is not a file")
    if (size := size_of(path)) > _LARGEST_JSON:
        raise UserError(
            f"{path} has {size:,} bytes; at most {_LARGEST_JSON:,} are read as settings"
        )
    try:
        return json.loads(read_text(path, expected="JSON"))
    except RecursionError:
        raise UserError(f"{path} is not valid JSON: it is nested too deep") from None
    except ValueError as error:  # not text, not JSON, or a number of thousands of digits
        raise UserError(f"{path} is not valid JSON: {error}") from None
