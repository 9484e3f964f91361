"""CTranslate2's `model.bin` (version 6): named tensors one after the other, and aliases.

Only the heads of the records are read; a large model may lie in several pieces, which are read as
one file.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.weights.files.safetensors_file import file_tensor
from ltu_jax.weights.tensors import Tensor, WeightsError, damaged

VERSION = 6
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_CHUNK = 4 << 20
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, kw_only=True)
class Ct2Model:
    """What a model.bin holds; `quantised` is the name of an integer weight matrix, or None."""

    spec: str
    tensors: dict[str, Tensor]
    aliases: dict[str, str]
    quantised: str | None


class _Joined:
    """Several files as one, read forward."""

    def __init__(self, pieces: Sequence[Path]):
        self.pieces = [(piece, piece.stat().st_size) for piece in pieces]
        self.path, self.size, self.at = pieces[0], sum(size for _, size in self.pieces), 0

    def places(self, start: int, size: int) -> list[tuple[Path, int, int]]:
        """Return (piece, first byte in it, bytes) of each part of a stretch."""
        stretches, begin = [], 0
        for piece, length in self.pieces:
            first, last = max(start, begin), min(start + size, begin + length)
            if first < last:
                stretches.append((piece, first - begin, last - first))
            begin += length
        return stretches

    def skip(self, size: int) -> int:
        """Move on by `size` bytes and return where they began."""
        if size > self.size - self.at:
            raise damaged(self.path, f"it ends at byte {self.size} inside a record")
        self.at += size
        return self.at - size

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; for heads, which are short."""
        start, pieces = self.skip(size), []
        for piece, first, length in self.places(start, size):
            with piece.open("rb") as file:
                file.seek(first)
                pieces.append(file.read(length))
        return b"".join(pieces)

    def number(self, kind: str) -> int:
        """Read one little-endian number."""
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        """Read a string with its length, ended by a zero byte."""
        raw = self.take(self.number("H"))
        try:
            return raw.removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            raise damaged(self.path, "a name in it is not text") from None

    def tensor(self, start: int, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        """Return a tensor that begins at byte `start`, read when it is asked for."""
        places = self.places(start, math.prod(shape) * dtype.itemsize)
        if len(places) == 1:
            return file_tensor(places[0][0], start=places[0][1], shape=shape, dtype=dtype)

        def read() -> np.ndarray:
            raw = [
                file_tensor(piece, start=first, shape=(length,), dtype=np.dtype(np.uint8)).read()
                for piece, first, length in places
            ]
            return np.concatenate([*raw, np.empty(0, np.uint8)]).view(dtype).reshape(shape)

        return Tensor(shape=shape, dtype=dtype, read=read)


def read_model(pieces: Sequence[Path]) -> Ct2Model:
    """Open a model.bin, or the pieces of one in order.

    Raises:
        WeightsError: truncated, of another version, or a record that contradicts itself.
    """
    file = _Joined(pieces)
    version = file.number("I")
    if version != VERSION:
        raise WeightsError(
            f"{file.path} is not a CTranslate2 model of version {VERSION} (found {version})"
        )
    spec = file.text()
    file.number("I")  # revision
    tensors: dict[str, Tensor] = {}
    quantised = None
    for _ in range(file.number("I")):
        name, tensor = _record(file)
        if name in tensors:
            raise damaged(file.path, f"{name[:80]!r} is there twice")
        tensors[name] = tensor
        if tensor.dtype.kind == "i" and len(tensor.shape) > 1 and "weight" in name:
            quantised = quantised or name
    aliases: dict[str, str] = {}
    for _ in range(file.number("I")):
        alias, target = file.text(), file.text()
        if target not in tensors:
            raise damaged(file.path, f"{alias[:80]!r} is an alias of nothing")
        aliases[alias] = target
    if file.at != file.size:
        raise damaged(file.path, f"{file.size - file.at} bytes follow its last record")
    return Ct2Model(spec=spec, tensors=tensors, aliases=aliases, quantised=quantised)


def _record(file: _Joined) -> tuple[str, Tensor]:
    name, rank = file.text(), file.number("B")
    if rank > _MAX_DIMENSIONS:
        raise damaged(file.path, f"{name[:80]!r} claims {rank} dimensions")
    shape = tuple(file.number("I") for _ in range(rank))
    code, size = file.number("B"), file.number("I")
    if code not in _DTYPES:
        raise WeightsError(
            f"{file.path}: {name[:80]!r} is quantised (dtype code {code}); use the float16 package"
        )
    dtype = np.dtype(_DTYPES[code])
    if size != math.prod(shape) * dtype.itemsize:
        raise damaged(file.path, f"{name[:80]!r} {list(shape)} of {dtype} has {size} bytes")
    return name, file.tensor(file.skip(size), shape, dtype)


def sha256(pieces: Sequence[Path]) -> str:
    """Return the hex SHA-256 of the pieces as one file."""
    digest: Any = hashlib.sha256()
    for piece in pieces:
        with piece.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    return digest.hexdigest()
