"""Bytes of a file: looked up, and put together anew for a decoder without a copy of the file."""

import io
from collections.abc import Sequence
from typing import BinaryIO

_BLOCK = 1 << 16

Piece = bytes | tuple[int, int]  # given bytes, or those of the file from .. up to


class Content:
    """Random access to a seekable stream, of which one block is in memory."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.size = stream.seek(0, io.SEEK_END)
        self._start, self._block = 0, b""

    def at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end of the file."""
        start = offset - self._start
        if start >= 0 and start + size <= len(self._block):
            return self._block[start : start + size]
        self.stream.seek(max(offset, 0))
        self._start, self._block = max(offset, 0), _read(self.stream, max(size, _BLOCK))
        return self._block[:size]

    def zeros(self, offset: int) -> int:
        """How many bytes from `offset` on are 0."""
        start = offset
        while piece := self.at(offset, _BLOCK):
            filled = piece.lstrip(b"\0")
            offset += len(piece) - len(filled)
            if filled:
                break
        return offset - start

    def part(self, *pieces: Piece) -> "Spliced":
        """A file of these pieces."""
        return Spliced(self.stream, pieces)


class Spliced(io.RawIOBase):
    """A readable, seekable file made of bytes and of stretches of another file."""

    def __init__(self, stream: BinaryIO, pieces: Sequence[Piece]):
        super().__init__()
        self._stream, self._place = stream, 0
        self._pieces, size = [], 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            if length > 0:
                self._pieces.append((size, size + length, piece))
                size += length
        self._size = size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; a place behind the end reads as the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the file goes."""
        view, done = memoryview(buffer).cast("B"), 0
        for start, end, piece in self._pieces:
            if done == len(view) or not start <= self._place < end:
                continue
            size = min(end - self._place, len(view) - done)
            offset = self._place - start
            if isinstance(piece, bytes):
                data = piece[offset : offset + size]
            else:
                self._stream.seek(piece[0] + offset)
                data = _read(self._stream, size)
            view[done : done + len(data)] = data
            done += len(data)
            self._place += len(data)
            if len(data) < size:
                break
        return done


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read as a buffered stream does: all of it, unless the file ends."""
    data = stream.read(size) or b""
    if len(data) == size:
        return data
    pieces, got = [data], len(data)
    while got < size and (data := stream.read(size - got)):
        pieces.append(data)
        got += len(data)
    return b"".join(pieces)
