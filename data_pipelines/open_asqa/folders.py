"""Files under their published names, anywhere below the folder of a source."""

import os
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file


def metadata_file(folder: Path, name: str, *, optional: bool = False) -> Path | None:
    """Return the file of this name below `folder`; None where an optional one is missing.

    Raises:
        UserError: no such folder or file, or several files of this name that differ.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder with {name} as `metadata`")
    found = [
        Path(place) / name
        for place, folders, files in os.walk(folder)
        if folders.sort() is None and name in files
    ]
    if not found:
        if optional:
            return None
        raise UserError(f"{folder} has no {name}, there or in its folders: copy it there")
    if len(found) > 1 and len({sha256_file(path) for path in found}) > 1:
        raise UserError(f"{found[0]} and {found[1]} differ: keep the one that is meant")
    return found[0]
