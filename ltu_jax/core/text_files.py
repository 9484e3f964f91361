"""Read text files in UTF-8, or in the UTF-16 and UTF-32 of PowerShell, Excel and Notepad.

The first bytes tell which. Latin-1, Windows-1252 and their like cannot be told from each other and
are refused by file and line: a guess would put wrong letters into questions and answers.
"""

import codecs
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import as_path

_HEAD = 64
_CHUNK = 1 << 20
_MARKS = (  # of UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """Return the codec of a text that begins with `head`, by its mark or by its zero bytes."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    even, odd = (head[first::2].count(0) for first in (0, 1))
    # Files of ours, JSON and tables have ASCII at the start: every other byte of UTF-16 is zero.
    if not even and odd > len(head) // 4:
        return "utf-16-le"
    if not odd and even > len(head) // 4:
        return "utf-16-be"
    return "utf-8"


class TextError(UserError):
    """An error for bytes that are no text in the encoding of the file's beginning."""


@contextlib.contextmanager
def open_text(
    path: str | os.PathLike,
    *,
    expected: str = "a text file",
    newline: str | None = None,
    errors: str = "strict",
) -> Iterator[TextIO]:
    """Open a text file for reading in its own encoding; for a `with` block.

    Args:
        path: the file.
        expected: the kind of file that is expected, for messages.
        newline: as of `open`.
        errors: as of `open`, for UTF-8; in UTF-16 and UTF-32 wrong bytes are always refused.

    Raises:
        TextError: within the block, at bytes of another encoding; names their line.
    """
    path = as_path(path)
    with path.open("rb") as file:
        encoding = encoding_of(file.read(_HEAD))
    lenient = errors if encoding.startswith("utf-8") else "strict"
    try:
        with (
            path.open("rb") as file,
            io.TextIOWrapper(file, encoding, newline=newline, errors=lenient) as text,
        ):
            yield text
    except UnicodeError as error:
        if isinstance(error, UnicodeEncodeError):
            raise
        raise TextError(_explain(path, encoding, expected)) from None


def read_text(path: str | os.PathLike, *, expected: str = "a text file") -> str:
    """Return the whole text of a file, line ends as "\\n", without a byte order mark.

    Raises:
        TextError: the file is in an encoding that its first bytes do not tell.
    """
    with open_text(path, expected=expected) as file:
        return file.read()


def _explain(path: Path, encoding: str, expected: str) -> str:
    """Say where the first byte is that does not decode, and what to do."""
    name = encoding.removesuffix("-sig").upper()
    if not encoding.startswith("utf-8"):
        return f"{path} begins as {name}, but is damaged or cut off: it should be {expected}"
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, rest = 1, b""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            rest += piece
            try:
                decoder.reset()
                decoder.decode(rest)
            except UnicodeDecodeError as error:
                line += rest[: error.start].count(b"\n")
                begin = rest.rfind(b"\n", 0, error.start) + 1
                excerpt = rest[max(begin, error.start - 20) : error.start + 20]
                excerpt = excerpt.split(b"\n")[0].decode("latin-1").strip()
                return (
                    f"{path} is not UTF-8 text (line {line}, byte 0x{rest[error.start]:02X} in "
                    f"{excerpt!a}): it should be {expected}. If it is Windows-1252 or Latin-1, "
                    f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new"
                )
            cut = len(decoder.getstate()[0])  # bytes of a character that the piece cuts
            done, rest = (rest, b"") if not cut else (rest[:-cut], rest[-cut:])
            line += done.count(b"\n")
    return f"{path} is not UTF-8 text (it ends inside a character): it should be {expected}"
