"""Tables and lists in dataset folders, read with errors that name the file and line."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.jsonl import parse_object
from ltu_jax.core.text_files import read_text

T = TypeVar("T")
_LISTED = 5  # bad records that a message spells out
_MOST_BYTES = 8 << 30  # Open-ASQA's largest JSON has 4.6 GB


class UnusableRecords(UserError):
    """Records of a data set that cannot be asked; all of them, and what the rest is.

    Attributes:
        problems: what is wrong with each, in the order of the data.
        rest: the corpus without them, None where nothing is left.
    """

    def __init__(self, problems: Sequence[str], *, source: Path, rest: Any = None):
        self.problems, self.rest = tuple(problems), rest
        text = shorten(self.problems, most=_LISTED, separator="\n  ")
        if len(self.problems) > 1:
            text = f"{len(self.problems)} records of {source} cannot be asked:\n  {text}"
        super().__init__(text)


class RecordProblems:
    """Collects what is wrong with single records, so that one bad record does not hide others."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Run a block about one record: keep its `UserError` and leave the record out."""
        try:
            yield
        except UserError as error:
            self.found.append(str(error))

    def none_in(self, corpus: Any, *, source: Path) -> Any:
        """Return `corpus` where no record had a problem.

        Raises:
            BadRecords: with `corpus` as the rest, if it has items.
        """
        if self.found:
            raise UnusableRecords(self.found, source=source, rest=corpus if corpus.items else None)
        return corpus


def need(path: Path, *, expected: str) -> Path:
    """Return `path`; `UserError` with `what` it should be when nothing is there."""
    if not path.exists():
        raise UserError(f"{path} does not exist: it should be {expected}")
    return path


def check_split(split: str, splits: Sequence[str], *, dataset: str) -> None:
    """Raise `UserError` when the dataset has no such split."""
    if split not in splits:
        raise UserError(f"{dataset} has no split {split!r}: use one of {', '.join(splits)}")


def find(data: Path, places: Sequence[str], *, expected: str) -> Path:
    """Return the first of `places` under `data` that exists; `UserError` if none does."""
    need(data, expected=expected)
    for place in places:
        if (data / place).exists():
            return data / place
    raise UserError(f"{data} has no {' or '.join(places)}: give {expected}")


def visible(folder: Path) -> list[Path]:
    """List a folder by name, without the `._` files that macOS leaves in archives."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: it should be one")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def text_lines(path: Path, *, expected: str) -> Iterator[tuple[str, str]]:
    """Yield ("path:line", text) for each line that is not blank."""
    # Not splitlines: text may hold the line separators that only Unicode knows.
    for number, line in enumerate(_text(path, expected=expected).split("\n"), start=1):
        line = line.removeprefix("\ufeff")  # files joined together keep their marks
        if line.strip():
            yield f"{path}:{number}", line


def csv_rows(
    path: Path,
    *,
    columns: Sequence[str],
    expected: str,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
    problems: RecordProblems | None = None,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("path:line", row) for each row of a table.

    Args:
        path: the file.
        columns: those that the reader uses; others are passed on.
        expected: what the file should be, for the error when it is missing.
        delimiter: between the fields.
        header: column names of a file that has no header line.
        problems: takes rows with too few or too many fields; None raises for the first.

    Raises:
        UserError: no file, a column that the header lacks, a row with too few or too many fields
            or an open quote.
    """
    text = io.StringIO(_text(path, expected=expected), newline="")
    table = csv.DictReader(text, fieldnames=header, delimiter=delimiter, strict=True)
    with csv_errors_named(path, table, expected=expected):
        names = table.fieldnames or ()
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, names))}: is it {expected}?"
        )
    rows, whole = iter(table), False
    while True:
        with csv_errors_named(path, table, expected=expected):
            row = next(rows, None)
        if row is None:
            return
        where = f"{path}:{table.line_num}"
        with problems.record() if problems is not None else contextlib.nullcontext():
            if any(row[name] is None for name in columns):
                raise UserError(f"{where}: too few fields; the file may be cut off")
            if None in row:
                raise UserError(
                    f"{where}: more fields than columns; a text with {delimiter!r} needs quotes"
                )
            whole = True
        if whole:
            yield where, row
            whole = False


@contextlib.contextmanager
def csv_errors_named(path: Path, table: csv.DictReader, *, expected: str) -> Iterator[None]:
    """Raise `UserError` with file and line for what a block's table cannot read."""
    try:
        yield
    except csv.Error as error:
        raise UserError(f"{path}:{table.line_num}: {error}; is it {expected}?") from None


def json_file(path: Path, *, expected: str) -> Any:
    """Return the value of a JSON file."""
    try:
        return json.loads(_text(path, expected=expected))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}; it should be {expected}") from None


def json_lines(
    path: Path, *, expected: str, problems: RecordProblems | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("path:line", object) for each line of JSONL; `problems` takes lines that are none."""
    for where, line in text_lines(path, expected=expected):
        record = None
        with problems.record() if problems is not None else contextlib.nullcontext():
            record = parse_object(line, where=where)
        if record is not None:
            yield where, record


def parsed_lines(
    path: Path,
    parse: Callable[..., T],
    *,
    expected: str,
    problems: RecordProblems | None = None,
) -> Iterator[tuple[str, T]]:
    """Yield ("path:line", value) for each line of JSONL.

    Args:
        path: the file.
        parse: makes a value of an object and `where`, its place for errors.
        expected: what the file should be, for the error when it is missing.
        problems: takes lines that cannot be parsed; None raises for the first.
    """
    for where, record in json_lines(path, expected=expected, problems=problems):
        value = None
        with problems.record() if problems is not None else contextlib.nullcontext():
            value = parse(record, where=where)
        if value is not None:
            yield where, value


def field(record: dict[str, Any], name: str, where: str) -> str:
    """Return the text under `name`; `UserError` when there is none."""
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {value!r}: give text")
    return value


def _text(path: Path, *, expected: str) -> str:
    need(path, expected=expected)
    if path.is_dir():
        raise UserError(f"{path} is a folder: it should be {expected}")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size >> 30} GB: it should be {expected}")
    return read_text(path, expected=expected)
