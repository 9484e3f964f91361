"""Arrays kept beside records as npz files without pickles; a damaged or missing one is no loss."""

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltu_jax.core.files import atomic_file


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read what was kept; None where nothing was, or where it is damaged."""
    try:
        with np.load(path) as data:  # the zip checks the CRC of each member
            return dict(data)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays where the folder can be written, else do without."""
    with contextlib.suppress(OSError), atomic_file(path) as out:
        np.savez(out, **arrays)
