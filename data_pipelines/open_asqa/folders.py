"""Files under their published names, anywhere below the folder of a source."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenSource:
    """Where a source lies.

    Attributes:
        name: in the registry.
        metadata: folder of its published files, wherever below it.
        audio: folder of its audio; None to look for none.
        clips: file with the names of the clips to take; None for all.
    """

    name: str
    metadata: Path
    audio: Path | None = None
    clips: Path | None = None


def metadata_file(folder: Path, name: str, *, optional: bool = False) -> Path | None:
    """Return the file of this name below `folder`; None where an optional one is missing.

    Raises:
        UserError: no such folder or file, or several files of this name that differ.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder with {name} as `metadata`")
    found = [Path(place) / name for place, files in _walked(folder) if name in files]
    if not found:
        if optional:
            return None
        raise UserError(f"{folder} has no {name}, there or in its folders: copy it there")
    if len(found) > 1 and len({sha256_file(path) for path in found}) > 1:
        raise UserError(f"{found[0]} and {found[1]} differ: keep the one that is meant")
    return found[0]


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the file of the first of these names that is there; None where there is none."""
    for name in names:
        path = metadata_file(folder, name, optional=True)
        if path is not None:
            return path
    return None


def listing(folder: Path) -> str:
    """Return a hash of the names and sizes of all files below a folder."""
    digest = hashlib.sha256()
    for place, files in _walked(folder):
        for name in sorted(files):
            path = os.path.join(place, name)
            digest.update(
                os.fsencode(f"{os.path.relpath(path, folder)}\0{os.stat(path).st_size}\0")
            )
    return digest.hexdigest()


def _walked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield place, files
