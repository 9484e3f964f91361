"""Arrays kept beside records as npz files without pickles; a damaged or missing one is no loss.

A start reads thousands of small ones, which `np.load` takes four times as long for: it opens every
member as a file of its own.
"""

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import failures, read_range

_LOCAL = 30  # bytes of a member's own header in a zip file, before its name
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<][biufU]\d+)', 'fortran_order': False, "
    rb"'shape': \(((?:\d+,? ?)*)\), \} *\n",
    re.DOTALL,
)


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read what was kept; None where nothing was, or where it is damaged."""
    try:
        content = read_range(path)
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            return {
                one.filename.removesuffix(".npy"): _array(content, one)
                for one in members.infolist()
            }
    except (*failures(path), ValueError, KeyError, zipfile.BadZipFile):
        return None


def _array(content: bytes, member: zipfile.ZipInfo) -> np.ndarray:
    """Read an array that `np.savez` wrote; raises ValueError for anything else."""
    lengths = content[member.header_offset + _LOCAL - 4 : member.header_offset + _LOCAL]
    names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    begin = member.header_offset + _LOCAL + names
    stored = memoryview(content)[begin : begin + member.file_size]
    head = _NPY.match(stored)
    whole = member.compress_type == zipfile.ZIP_STORED and len(stored) == member.file_size
    if head is None or not whole or zlib.crc32(stored) != member.CRC:
        raise ValueError(f"{member.filename} is damaged, or not as np.savez writes it")
    shape = tuple(int(size) for size in head[2].split(b",") if size.strip())
    # A copy: members begin at any byte, and arrays should not.
    values = np.frombuffer(stored[head.end() :], head[1].decode())
    return values.reshape(shape).copy()


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays where the folder can be written, else do without."""
    with contextlib.suppress(*failures(path)), atomic_file(path) as out:
        np.savez(out, **arrays)
