"""Rows of JSON one by one into a file of any size, each on a line of its own."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` makes one at each call


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands before the rows, between two and behind the last one."""

    before: bytes
    between: bytes
    after: bytes

    @classmethod
    def of(cls, path: Path) -> "Layout":
        """Return that of a file by its name: lines of .jsonl, one list of any other."""
        return LINES if path.suffix.lower() == ".jsonl" else LIST


LINES = Layout(before=b"", between=b"\n", after=b"\n")
LIST = Layout(before=b"[\n", between=b",\n", after=b"\n]\n")
ANNOTATION = Layout(before=b'{"annotation": [\n', between=b",\n", after=b"\n]}\n")


class RowWriter:
    """Writes rows to an open file; one that already holds rows is gone on with."""

    def __init__(self, file: BinaryIO, layout: Layout):
        """Take the file, open to write at its end."""
        self._file, self._layout = file, layout

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self.write_json(as_json(row))

    def write_json(self, row: bytes) -> None:
        """Write a row that is JSON without line feeds already."""
        self._file.write(self._layout.between if self._file.tell() else self._layout.before)
        self._file.write(row)

    def finish(self) -> None:
        """Write what stands behind the last row."""
        if not self._file.tell():
            self._file.write(self._layout.before)
        self._file.write(self._layout.after)


def as_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON on one line; half characters, which UTF-8 cannot hold, are escaped."""
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")
