"""Hash the files of a checkpoint, and check that they are those that were written.

metadata.json lists the SHA-256 of every other file, and metadata.json.sha256, written last, is that
of metadata.json in the format of `sha256sum`. A folder without the second is not complete.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.core.paths import files_below, is_remote

FORMAT = 2
METADATA, SEAL = "metadata.json", "metadata.json.sha256"


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, of another model, or could not be written."""


class Damaged(CheckpointError):
    """A checkpoint whose files are not those that were written; the message names them."""


def seal(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write the metadata of a folder with the hashes of its files, all of it durably on disk."""
    write_json(folder / METADATA, {**metadata, "ltu_jax": FORMAT, "files": hashes(folder)})
    (folder / SEAL).write_text(f"{sha256_file(folder / METADATA)}  {METADATA}\n")
    if not is_remote(folder):  # what a bucket has taken is durable
        for path in sorted(folder.rglob("*"), reverse=True):
            flush(path)
        flush(folder)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # What some network file systems say to a folder; they keep its names by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def hashes(folder: Path) -> dict[str, str]:
    """Return the hex SHA-256 by relative path of every file but the two that list them."""
    return {name: sha256_file(path) for name, path in _files(folder).items()}


def _files(folder: Path) -> dict[str, Path]:
    listed = (path for path in files_below(folder) if path.name not in (METADATA, SEAL))
    return {path.relative_to(folder).as_posix(): path for path in listed}


def read_sealed(folder: Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint folder, and compare it with its seal.

    Raises:
        Damaged: metadata or seal are missing or changed.
        CheckpointError: written by another format.
    """
    metadata = _metadata(folder)
    format = metadata.get("ltu_jax")
    if format != FORMAT:
        raise CheckpointError(
            f"{folder / METADATA}: format {format!r} of kind {metadata.get('kind')!r}; this "
            f"version reads format {FORMAT}: use the version that wrote it, or train anew"
        )
    if not (folder / SEAL).is_file():
        raise Damaged(f"{folder} is damaged: its file {SEAL} is missing")
    for key, kind in (("parameters", dict), ("files", dict)):
        if not isinstance(metadata.get(key), kind):
            raise Damaged(f"{folder / METADATA} is damaged: it has no {key}")
    if not (folder / "adapter").is_dir():
        raise Damaged(f"{folder} is damaged: its folder adapter is missing")
    return metadata


def _metadata(folder: Path) -> dict[str, Any]:
    path, written = folder / METADATA, folder / SEAL
    if not path.is_file():
        raise Damaged(f"{folder} is damaged: its file {METADATA} is missing")
    if written.is_file() and written.read_bytes() != f"{_hash(path)}  {METADATA}\n".encode():
        raise Damaged(f"{folder} is damaged: {METADATA} or {SEAL} changed since they were saved")
    try:
        metadata = read_json(path)
    except UserError as error:
        raise Damaged(f"{folder} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise Damaged(f"{path} is not a JSON object")
    return metadata


def check_files(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Compare every file of a checkpoint with its hash.

    Raises:
        Damaged: names the files that are missing or changed.
        CheckpointError: a file cannot be read, which is not known to be damage.
    """
    wrong, present = [], _files(folder)
    for name, digest in metadata["files"].items():
        if name not in present:
            wrong.append(f"{name} (missing)")
        elif _hash(present[name]) != digest:
            wrong.append(name)
    if wrong:
        raise Damaged(
            f"{folder} is damaged: {len(wrong)} of {len(metadata['files'])} files missing or "
            f"changed since they were saved: {shorten(wrong)}"
        )


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); make it readable, or move its checkpoint "
            "away to go on from the one before it"
        ) from error
