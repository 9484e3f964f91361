"""JSON Lines files of our own: appended line by line, so that a kill or a full disk costs one line.

In a bucket, where nothing can be appended to, they are parts (`core/parts.py`), and a lost machine
costs the lines of the last seconds. Readers see one file, by the name that it would have.

A reader sees finished lines only; the process that appends cuts off what an earlier one left
unfinished. Tables that people bring are read by `parse_object` from lines in any encoding.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file
from ltu_jax.core.parts import PartsWriter, read_parts
from ltu_jax.core.paths import as_path, is_remote

# The remedy for a broken line; a file deleted whole would cost hours.
DELETE = "delete that line and run the command again, which writes it anew"
_BLOCK = 1 << 16  # bytes


class JsonlWriter:
    """A file that gets one JSON object a line, each handed to the operating system at once.

    Only the process that owns the file may open it so: what looks unfinished to a reader may be a
    line that another process is writing.
    """

    def __init__(self, path: str | os.PathLike):
        """Open `path` to append to; its folder is made, and an unfinished last line is cut off."""
        self.path = as_path(path)
        self._parts = PartsWriter(self.path) if is_remote(self.path) else None
        if self._parts is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _cut_unfinished(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, or none of it.

        Raises:
            OSError: the disk is full or failed; it names the file, which holds whole lines still.
        """
        line = _line(record)
        if self._parts is not None:
            self._parts.write(line)
            return
        size = os.fstat(self._file.fileno()).st_size
        try:
            done = 0
            while done < len(line):
                done += self._file.write(line[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def flush(self) -> None:
        """Wait until every line is where it outlives this process."""
        if self._parts is not None:
            self._parts.flush()

    def close(self) -> None:
        """Close the file; every line was written when it was appended, or its error raised."""
        if self._parts is not None:
            self._parts.close()
        else:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cut_unfinished(path: Path) -> None:
    """Cut a file behind its last line feed, which is looked for from its end."""
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                end = start + place + 1
                break
            end = start
    if end < size:
        os.truncate(path, end)


def read_jsonl(
    path: str | os.PathLike, *, advice: str = DELETE, error: type[UserError] = UserError
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("path:line", object) of each finished line; nothing for a file that is not there.

    Args:
        path: the file.
        advice: what to do about a broken line.
        error: the kind to raise.

    Raises:
        UserError: a finished line is not a JSON object.
    """
    if is_remote(path):
        parts = read_parts(path)
    else:
        parts = [(path, Path(path).read_bytes())] if Path(path).exists() else []
    for where, line in _lines(parts):
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as cause:
            raise error(f"{where} is not a JSON line ({cause}); {advice}") from None
        if not isinstance(record, dict):
            raise error(f"{where} is not a JSON object; {advice}")
        yield where, record


def _lines(parts: Iterable[tuple[str | os.PathLike, bytes]]) -> Iterator[tuple[str, bytes]]:
    for path, content in parts:
        # Not splitlines: texts may hold the line separators that only Unicode knows.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            yield f"{path}:{number}", line


def write_jsonl(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Write all lines at once, in place of what was there."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        for record in records:
            file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())  # the parts that this file replaces may be deleted next


def parse_object(line: str, *, where: str) -> dict[str, Any]:
    """Return the JSON object of a line that a person's program wrote.

    Raises:
        UserError: the line, called `where`, is no JSON, nested too deep, or no object.
    """
    try:
        record = json.loads(line)
    except RecursionError:
        raise UserError(f"{where} is not valid JSON: it is nested too deep") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise UserError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} is {line.strip()[:60]!r}: give one JSON object a line")
    return record


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a character, which UTF-8 cannot hold and an escape can
        return (json.dumps(record) + "\n").encode()
