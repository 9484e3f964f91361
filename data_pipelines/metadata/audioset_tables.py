"""AudioSet's tables: weak labels of segments, strong labels of events, names of classes.

    balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv
        # three lines of remarks
        aBcDeFgHiJk, 30.000, 40.000, "/m/09x0r,/t/dd00088"      id, start, end, classes by mid
    class_labels_indices.csv     index,mid,display_name          527 names, many with commas
    audioset_{train,eval}_strong.tsv
        segment_id  start_time_seconds  end_time_seconds  label  id_milliseconds; times in the clip
    mid_to_display_name.tsv      mid, name                       456 names, no header line
    ontology.json                [{"id", "name", "child_ids", ...}], kinds of sounds as a tree

The names of the two lists differ for the same mid. Segments end where their video does, so some
last less than 10 s. Copies of the weak tables that were saved again have tripled quotes and commas
at the end of lines; they are read alike.
"""

import csv
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_pipelines.metadata.table_files import RecordProblems, csv_rows, json_file, need
from ltu_jax.core.errors import UserError
from ltu_jax.core.text_files import TextError, open_text

VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_STRONG_COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
_WEAK = "a table of AudioSet's segments: YouTube id, start, end, classes"
_ONTOLOGY = "AudioSet's ontology.json, a list of classes with id and child_ids"
_STRONG = "a table of AudioSet's strong labels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSegment:
    """A segment of a video and its classes.

    Attributes:
        where: file and line.
        video: YouTube id.
        start, end: seconds in the video.
        labels: names of its classes, in the order of the table.
    """

    where: str
    video: str
    start: float
    end: float
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrongSegment:
    """A segment and the events in it: (class, start, end), seconds from its start, by onset.

    Every occurrence of every class is marked: what is not there was not heard.
    """

    where: str
    video: str
    start: float
    events: tuple[tuple[str, float, float], ...]


def class_names(path: Path) -> dict[str, str]:
    """Return mid -> name, of class_labels_indices.csv or mid_to_display_name.tsv.

    Raises:
        UserError: no file; a line without mid and name; a mid twice.
    """
    need(path, expected="a list of AudioSet's classes")
    if path.suffix == ".tsv":
        rows = csv_rows(
            path,
            columns=("mid", "display_name"),
            expected="a list of AudioSet's classes",
            delimiter="\t",
            header=("mid", "display_name"),
        )
    else:
        rows = csv_rows(
            path, columns=("mid", "display_name"), expected="a list of AudioSet's classes"
        )
    names: dict[str, str] = {}
    for where, row in rows:
        mid, name = row["mid"].strip(), row["display_name"].strip()
        if not mid.startswith("/") or not name:
            raise UserError(f"{where}: mid {mid!r} and name {name!r}: copy the list again")
        if names.setdefault(mid, name) != name:
            raise UserError(f"{where}: {mid} is {name!r} here and {names[mid]!r} above")
    return names


def related(path: Path) -> dict[str, set[str]]:
    """Return mid -> the mids of ontology.json above it, below it and beside it.

    Raises:
        UserError: no file, or one of another form.
    """
    children: dict[str, list[str]] = {}
    entries = json_file(path, expected=_ONTOLOGY)
    for entry in entries if isinstance(entries, list) else [entries]:
        mid = entry.get("id") if isinstance(entry, dict) else None
        below = entry.get("child_ids") if isinstance(entry, dict) else None
        if not isinstance(below, list) or not all(isinstance(one, str) for one in [mid, *below]):
            raise UserError(
                f"{path}: {str(entry)[:60]!r} has no id and child_ids: is it {_ONTOLOGY}?"
            )
        children[mid] = below
    parents: dict[str, list[str]] = {}
    for mid, below in children.items():
        for child in below:
            parents.setdefault(child, []).append(mid)
    return {
        mid: (
            _reached(mid, children)
            | _reached(mid, parents)
            | {child for parent in parents.get(mid, ()) for child in children[parent]}
        )
        - {mid}
        for mid in children
    }


def _reached(mid: str, steps: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(steps.get(mid, ()))
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += steps.get(one, ())
    return found


def segments(
    path: Path, *, names: Mapping[str, str], problems: RecordProblems
) -> Iterator[VideoSegment]:
    """Yield the segments of a weak table in its order; `problems` takes lines that are broken.

    Raises:
        UserError: no file, or one that is no text.
    """
    need(path, expected=_WEAK)
    known: set[tuple[str, float]] = set()
    try:
        with open_text(path, expected=_WEAK, newline="") as file:
            table = csv.reader(file, skipinitialspace=True)
            for row in table:
                if not any(row) or row[0].lstrip('"').startswith("#"):
                    continue
                where = f"{path}:{table.line_num}"
                read = None
                with problems.record():
                    whole = _segment(row, where, names)
                    if (whole.video, whole.start) in known:
                        raise UserError(f"{where}: {whole.video} at {whole.start} s is there twice")
                    known.add((whole.video, whole.start))
                    read = whole
                if read is not None:
                    yield read
    except (TextError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): copy it again") from None


def _segment(row: list[str], where: str, names: Mapping[str, str]) -> VideoSegment:
    fields = [field.strip() for field in row]
    while fields and not fields[-1]:
        fields.pop()
    if len(fields) != 4:
        raise UserError(f"{where}: {len(fields)} fields; a segment has id, start, end and classes")
    video, start, end = fields[0], _seconds(fields[1], where), _seconds(fields[2], where)
    if not VIDEO_ID.fullmatch(video):
        raise UserError(f"{where}: {video!r} is no YouTube id of 11 characters")
    if end <= start:
        raise UserError(f"{where}: it ends at {end} s, before its start at {start} s")
    mids = fields[3].strip('"').split(",")
    return VideoSegment(
        where=where,
        video=video,
        start=start,
        end=end,
        labels=tuple(dict.fromkeys(_name(mid.strip(), where, names) for mid in mids)),
    )


def strong_segments(
    path: Path, *, names: Mapping[str, str], problems: RecordProblems
) -> Iterator[StrongSegment]:
    """Yield the segments of a strong table by first line; `problems` takes lines that are broken.

    A segment with a broken line is left out: an event that is missing would make false answers.

    Raises:
        UserError: no file, or one with other columns.
    """
    events: dict[str, list[tuple[str, float, float]]] = {}
    first: dict[str, str] = {}
    broken: set[str] = set()
    rows = csv_rows(
        path, columns=_STRONG_COLUMNS, expected=_STRONG, delimiter="\t", problems=problems
    )
    for where, row in rows:
        segment = row["segment_id"]
        first.setdefault(segment, where)
        done = False
        with problems.record():
            start, end = (_seconds(row[name], where) for name in _STRONG_COLUMNS[1:3])
            if end < start:
                raise UserError(f"{where}: it ends at {end} s, before its start at {start} s")
            event = (_name(row["label"], where, names), start, end)
            events.setdefault(segment, []).append(event)
            done = True
        if not done:
            broken.add(segment)
    for segment, where in first.items():
        if segment in broken:
            continue
        video, mark, milliseconds = segment.rpartition("_")
        made = None
        with problems.record():
            if not mark or not milliseconds.isdecimal() or not VIDEO_ID.fullmatch(video):
                raise UserError(f"{where}: segment_id is {segment!r}: give id_milliseconds")
            own = sorted(set(events[segment]), key=lambda event: (event[1], event[2], event[0]))
            made = StrongSegment(
                where=where, video=video, start=int(milliseconds) / 1000, events=tuple(own)
            )
        if made is not None:
            yield made


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where}: {text!r} should be seconds")
    return value


def _name(mid: str, where: str, names: Mapping[str, str]) -> str:
    if mid not in names:
        raise UserError(f"{where}: class {mid!r} is not in the list of classes")
    return names[mid]
