"""Rows of Open-ASQA manifests, one by one: JSON lists of any size and JSON Lines, each row checked.

A row that breaks the rules is one `RecordError` naming file, row and field: it stands in the row's
place, and the next row follows.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from data_pipelines.records import schema
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.core.text_files import open_text

OPTIONAL = ("split", "tags")
_CHUNK = 1 << 20


class BrokenList(RecordError):
    """A JSON list that cannot be read on: nothing is known of the rows behind the place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialRow:
    """One official record and where it stands; `number` counts from 1 (the line number of a JSONL
    file).
    """

    source: Path
    number: int
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"{self.source}, row {self.number}"


def rows_or_errors(path: Path) -> Iterator[OfficialRow | RecordError]:
    """Stream the rows of a JSON list (any size: at most one is in memory) or of a ``.jsonl`` file.

    In place of a row with a missing, unknown or ill-typed field stands its error. Broken JSON ends
    a list (`BrokenList`); of a ``.jsonl`` file it costs its line.

    Raises:
        RecordError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"manifest {path} does not exist; give a JSON list or a .jsonl file")
    values = lines_or_errors(path) if path.suffix.lower() == ".jsonl" else list_or_error(path)
    for number, value in values:
        if isinstance(value, RecordError):
            yield value
            continue
        row = OfficialRow(source=path, number=number, values=value)
        try:
            check(row)
        except RecordError as error:
            yield error
        else:
            yield row


def check(row: OfficialRow) -> None:
    """Require the fields of an official row, each of its type; raises `RecordError`."""
    if not isinstance(row.values, dict):
        raise RecordError(
            f"{row.where}: is {type(row.values).__name__}, expected an object with fields"
        )
    for field in schema.OFFICIAL_FIELDS:
        if field not in row.values:
            raise RecordError(
                f"{row.where}: field {field!r} is missing; a row has "
                f"{', '.join(schema.OFFICIAL_FIELDS)}"
            )
        value = row.values[field]
        if not isinstance(value, str):
            raise RecordError(f"{row.where}: field {field!r} is {value!r}: give text")
        # The spoken text may be empty (nobody speaks); nothing else may.
        if field != "input" and not value.strip():
            raise RecordError(f"{row.where}: field {field!r} is empty: give text")
        schema.check_unicode(value, field=field, where=row.where)
    unknown = sorted(set(row.values) - {*schema.OFFICIAL_FIELDS, *OPTIONAL})
    if unknown:
        raise RecordError(
            f"{row.where}: unknown field {unknown[0]!r}; known are "
            f"{', '.join((*schema.OFFICIAL_FIELDS, *OPTIONAL))}"
        )
    if row.values.get("split", "train") not in schema.SPLITS:
        raise RecordError(
            f"{row.where}: field 'split' is {row.values['split']!r}: use one of "
            f"{', '.join(schema.SPLITS)}"
        )
    tags = row.values.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag.strip() for tag in tags):
        raise RecordError(f"{row.where}: field 'tags' is {tags!r}: give a list of label names")
    for tag in tags:
        schema.check_unicode(tag, field="tags", where=row.where)


def _parsed(text: str, *, where: str) -> Any:
    """Parse a JSON value; return the error where there is none."""
    try:
        return json.loads(text)
    except RecursionError:
        return RecordError(f"{where}: not valid JSON: nested too deep")
    except ValueError as error:  # not JSON, or a number of thousands of digits
        return RecordError(f"{where}: not valid JSON: {error}")


def lines_or_errors(path: Path) -> Iterator[tuple[int, Any]]:
    """Read (line number, value) of a JSON Lines file; a broken line has its error for a value."""
    # Bytes that are no UTF-8 become half characters, which `_check` refuses in their row.
    with _open(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix("\ufeff")  # files joined together keep their marks
            if text.strip():
                yield number, _parsed(text, where=f"{path}, row {number}")


@contextlib.contextmanager
def _open(path: Path, *, newline: str | None = None) -> Iterator[TextIO]:
    try:
        with open_text(
            path, expected="a manifest", newline=newline, errors="surrogateescape"
        ) as file:
            yield file
    except RecordError:
        raise
    except UserError as error:  # UTF-16 that is cut off
        raise RecordError(str(error)) from None


def list_or_error(path: Path, *, under: str | None = None) -> Iterator[tuple[int, Any]]:
    """Read (number, value) of a JSON list; where it breaks off it has its error for a value.

    Args:
        path: the file.
        under: the list is the value of this first key of an object.
    """
    number = 0
    try:
        for number, value in _json_list(path, under=under):
            yield number, value
    except RecordError as error:
        yield number + 1, BrokenList(str(error))


def _json_list(path: Path, *, under: str | None) -> Iterator[tuple[int, Any]]:
    """Decode the elements of a JSON list one by one from a sliding buffer."""
    decoder = json.JSONDecoder()
    with _open(path) as file:
        buffer = _fill("", file)
        for sign in () if under is None else ("{", json.dumps(under), ":"):
            while len(buffer) < len(sign) and (piece := file.read(_CHUNK)):
                buffer += piece
            if not buffer.startswith(sign):
                raise RecordError(f'{path}: not an object that begins with {{"{under}": [')
            buffer = _fill(buffer[len(sign) :], file)
        if not buffer.startswith("["):
            raise RecordError(f"{path}: not a JSON list; begin with '[' or name the file .jsonl")
        buffer, number = buffer[1:], 0
        while (buffer := _fill(buffer, file))[:1] != "]":
            if not buffer:
                raise RecordError(f"{path}: the list is not closed by ']': the file is cut short")
            number += 1
            if number > 1:
                if not buffer.startswith(","):
                    raise RecordError(
                        f"{path}, row {number}: not valid JSON: expected ',' between rows"
                    )
                buffer = _fill(buffer[1:], file)
            value, buffer = _decode(buffer, file, decoder=decoder, where=f"{path}, row {number}")
            yield number, value


def _decode(buffer: str, file: TextIO, *, decoder: json.JSONDecoder, where: str) -> tuple[Any, str]:
    """Decode the first value of the buffer, reading on while it is cut; return it and the rest."""
    while True:
        try:
            value, stop = decoder.raw_decode(buffer)
        except RecursionError as error:
            raise RecordError(f"{where}: not valid JSON: nested too deep") from error
        except ValueError as error:
            piece = file.read(_CHUNK)
            if not piece:
                raise RecordError(f"{where}: not valid JSON: {error}") from error
            buffer += piece
        else:
            return value, buffer[stop:]


def _fill(buffer: str, file: TextIO) -> str:
    """Strip leading spaces, reading on until something else is in the buffer or the file ends."""
    buffer = buffer.lstrip()
    while not buffer and (piece := file.read(_CHUNK)):
        buffer = piece.lstrip()
    return buffer
