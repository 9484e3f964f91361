"""Recordings inside files of games: zip files by other names, OpenTTD's .cat, Doom's .wad.

    .cat: u32 offset (its highest bit set), u32 size for each entry; an entry is a u8 length, a
          name with its credit, and a RIFF file
    .wad: "IWAD", u32 count, u32 offset of the directory; there u32 offset, u32 size, 8 letters for
          each lump; a lump of sound is u16 3, u16 rate, u32 n and n bytes of unsigned PCM, of which
          the first and last 16 only pad

All numbers are little-endian.
"""

import io
import struct
import wave
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ltu_jax.sources.packages import PackageError

SEPARATOR = "!"  # between a container and what is in it
_LARGEST = 1 << 29  # bytes of one recording
_SIZE = struct.Struct("<I")
_ENTRY = struct.Struct("<II")
_LUMP = struct.Struct("<II8s")
_LETTERS = struct.Struct("B")  # length of a name
_SOUND = struct.Struct("<HHI")
_PAD = 16
_MOST_ENTRIES = 1 << 16
_ZIPS = (".zip", ".pk3")
# What damaged files raise.
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, wave.Error, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip


def read_contents(container: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes of a sound file) of those contents that are there.

    Args:
        container: the file.
        names: of its members; an entry of a .cat is its number and title, "03 Factory Whistle".

    Raises:
        PackageError: the file is of another kind, or damaged.
    """
    readers = dict.fromkeys(_ZIPS, _zip) | {".cat": _cat, ".wad": _wad}
    reader = readers.get(container.suffix)
    if reader is None:
        raise PackageError(f"{container} is no {', '.join(readers)}")
    try:
        yield from reader(container, frozenset(names))
    except BROKEN as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f"{container} cannot be read ({error}): fetch its package anew"
        ) from error


def _zip(container: Path, names: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(container) as opened:
        for member in opened.infolist():
            if member.filename not in names:
                continue
            if member.file_size > _LARGEST:
                raise ValueError(f"{member.filename} says that it has {member.file_size} bytes")
            yield member.filename, opened.read(member)


def _cat(container: Path, names: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    with container.open("rb") as file:
        head = file.read(_SIZE.size)
        count = (_SIZE.unpack(head)[0] & 0x7FFFFFFF) // _ENTRY.size
        _check_count(count)
        table = head + file.read(count * _ENTRY.size - len(head))
        for number in range(count):
            offset, size = _ENTRY.unpack_from(table, number * _ENTRY.size)
            file.seek(offset & 0x7FFFFFFF)
            (length,) = _LETTERS.unpack(file.read(_LETTERS.size))
            title = file.read(length).rstrip(b"\0").decode("utf-8", "replace")
            name = f"{number:02d} {_title(title)}"
            if name not in names:
                continue
            riff, length, kind = struct.unpack("<4sI4s", file.read(12))
            if riff != b"RIFF" or kind != b"WAVE" or not 4 <= length <= min(size, _LARGEST):
                raise ValueError(f"entry {number} is no WAVE file")
            yield name, riff + _SIZE.pack(length) + kind + file.read(length - 4)


def _check_count(count: int) -> None:
    if count > _MOST_ENTRIES:
        raise ValueError(f"it says that it has {count} entries")


def _title(text: str) -> str:
    """Return the quoted title at the beginning of an entry's credit."""
    return text[1:].partition('"')[0] if text.startswith('"') else text.partition(".")[0]


def _wad(container: Path, names: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    with container.open("rb") as file:
        kind, count, directory = struct.unpack("<4sII", file.read(12))
        if kind not in (b"IWAD", b"PWAD"):
            raise ValueError("it does not begin as a .wad file")
        _check_count(count)
        file.seek(directory)
        table = file.read(count * _LUMP.size)
        for number in range(count):
            offset, size, raw = _LUMP.unpack_from(table, number * _LUMP.size)
            name = raw.rstrip(b"\0").decode("ascii", "replace")
            if name in names:
                if size > _LARGEST:
                    raise ValueError(f"{name} says that it has {size} bytes")
                file.seek(offset)
                yield name, _wave(file.read(size), name)


def _wave(lump: bytes, name: str) -> bytes:
    """Return a lump of sound as a WAVE file."""
    kind, rate, count = _SOUND.unpack_from(lump)
    samples = lump[_SOUND.size : _SOUND.size + count]
    if kind != 3 or len(samples) != count or count <= 2 * _PAD:
        raise ValueError(f"{name} is no lump of sound")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(samples[_PAD:-_PAD])
    return buffer.getvalue()
