"""Arrays kept beside records as npz files without pickles; a damaged or missing one is no loss."""

import contextlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import failures, read_range


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read what was kept; None where nothing was, or where it is damaged."""
    try:
        with np.load(io.BytesIO(read_range(path))) as data:  # the zip checks the CRC of each member
            return dict(data)
    except (*failures(path), ValueError, KeyError, zipfile.BadZipFile):
        return None


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays where the folder can be written, else do without."""
    with contextlib.suppress(*failures(path)), atomic_file(path) as out:
        np.savez(out, **arrays)
