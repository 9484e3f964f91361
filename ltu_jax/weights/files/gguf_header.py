"""The header of a GGUF file, read with a limit on everything it may claim.

The `gguf` library believes the counts in a file: an array that says it has 2**60 numbers makes it
loop for ever, nested arrays overflow its stack. This reads the same header (version 2 and 3) and
refuses such a file before the library opens it; `convert info` needs nothing else.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.weights.tensors import WeightsError, damaged

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4  # ggml's own limit
_MAX_NAME = 65535
_SHOWN = 64  # longer arrays are skipped, not kept


@dataclass(frozen=True, kw_only=True)
class Header:
    """Metadata (long arrays as their length only), shapes in PyTorch's order, ggml type of each."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]


@dataclass(frozen=True)
class LongArray:
    """Stands for an array of metadata that is too long to keep."""

    length: int


class _Cursor:
    """Reads forward through the mapped file and never past its end."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 0

    def skip(self, size: int, *, subject: str) -> int:
        """Move on by `size` bytes and return where they began."""
        if size > len(self.data) - self.at:
            raise damaged(
                self.path,
                f"{subject} needs {size} bytes from byte {self.at}, the file has {len(self.data)}",
            )
        self.at += size
        return self.at - size

    def number(self, kind: str, *, subject: str) -> Any:
        """Read one little-endian number."""
        start = self.skip(struct.calcsize("<" + kind), subject=subject)
        return struct.unpack_from("<" + kind, self.data, start)[0]

    def text(self, *, subject: str) -> str:
        """Read a string with its length in front."""
        length = self.number("Q", subject=subject)
        start = self.skip(length, subject=subject)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise damaged(self.path, f"{subject} is not UTF-8 text") from None

    def value(self, kind: int, *, subject: str) -> Any:
        """Read a value of a metadata type; arrays of arrays do not occur in real files."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind], subject=subject)
        if kind == _STRING:
            return self.text(subject=subject)
        if kind != _ARRAY:
            raise damaged(self.path, f"{subject} is of unknown type {kind}")
        inner, length = self.number("I", subject=subject), self.number("Q", subject=subject)
        if inner in _NUMBERS:
            size = struct.calcsize("<" + _NUMBERS[inner])
            start = self.skip(length * size, subject=subject)
            if length > _SHOWN:
                return LongArray(length)
            return list(struct.unpack_from(f"<{length}{_NUMBERS[inner]}", self.data, start))
        if inner != _STRING:
            raise damaged(self.path, f"{subject} is an array of type {inner}")
        if length * 8 > len(self.data) - self.at:
            raise damaged(self.path, f"{subject} claims {length} strings")
        if length <= _SHOWN:
            return [self.text(subject=subject) for _ in range(length)]
        for _ in range(length):
            self.skip(self.number("Q", subject=subject), subject=subject)
        return LongArray(length)


def read_header(path: str | Path) -> Header:
    """Read and check the header; no tensor is touched.

    Raises:
        WeightsError: not GGUF, of another version, truncated, or a count, length, type or offset
            that the file cannot hold.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file")
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != MAGIC:
            raise WeightsError(f"{path} is not a GGUF file (it starts with {magic!r})")
        cursor = _Cursor(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    cursor.at = 4
    version = cursor.number("I", subject="the version")
    if version not in _VERSIONS:
        raise WeightsError(f"{path} is GGUF of version {version}; known are 2 and 3")
    tensors, fields = (cursor.number("Q", subject="the counts") for _ in range(2))
    metadata: dict[str, Any] = {}
    for _ in range(fields):
        key = cursor.text(subject="a metadata name")
        if key in metadata:
            raise damaged(path, f"metadata {key[:80]!r} is there twice")
        metadata[key] = cursor.value(
            cursor.number("I", subject=key), subject=f"metadata {key[:80]!r}"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, str] = {}
    known, ends = {int(kind): kind for kind in GGMLQuantizationType}, []
    for _ in range(tensors):
        name = cursor.text(subject="a tensor name")
        if name in shapes or len(name) > _MAX_NAME:
            raise damaged(path, f"tensor {name[:80]!r} is there twice or has too long a name")
        count = cursor.number("I", subject=name)
        if count > _MAX_DIMENSIONS:
            raise damaged(path, f"tensor {name[:80]!r} claims {count} dimensions")
        shape = tuple(cursor.number("Q", subject=name) for _ in range(count))
        kind, offset = cursor.number("I", subject=name), cursor.number("Q", subject=name)
        if kind not in known:
            raise WeightsError(f"{path}: tensor {name[:80]!r} is of unknown ggml type {kind}")
        block, size = GGML_QUANT_SIZES[known[kind]]
        if shape and shape[0] % block:
            raise damaged(path, f"tensor {name[:80]!r} {list(shape)} does not fill its blocks")
        ends.append((name, offset, math.prod(shape) // block * size))
        shapes[name] = tuple(reversed(shape))
        types[name] = known[kind].name
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise damaged(path, f"its alignment is {alignment!r}, not a power of two")
    first = -(-cursor.at // alignment) * alignment
    for name, offset, length in ends:
        if first + offset + length > len(cursor.data):
            raise damaged(
                path,
                f"tensor {name[:80]!r} ends at byte {first + offset + length}, the file has "
                f"{len(cursor.data)}",
            )
    return Header(metadata=metadata, shapes=shapes, types=types)
