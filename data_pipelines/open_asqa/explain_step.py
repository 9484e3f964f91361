"""Tell where a row is from: metadata, clip, spoken text, style, request, reply, filters.

    python -m data_pipelines.open_asqa explain DIR 1234 [--rows open_asqa.json]
    python -m data_pipelines.open_asqa explain DIR clotho:"Santa Motor.wav"

A number is that of a row of the file that `merge` wrote last, or of --rows, counted from 1.
SOURCE:CLIP shows a clip with all of its rows.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.row_writer import Layout
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.class_descriptions import class_descriptions
from data_pipelines.open_asqa.merge_step import provenance_file
from data_pipelines.open_asqa.merged_rows import input_files
from data_pipelines.open_asqa.open_ended.gate_scores import GATES, GateScores
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

_OF_CLIP = (build_folder.SPOKEN_TEXT, build_folder.STYLE)
Section = tuple[str, Mapping[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `explain`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that `build` made")
    parser.add_argument("row", metavar="ROW", help="number of a row, or SOURCE:CLIP")
    parser.add_argument("--rows", type=Path, help="merged file (default: that of the last `merge`)")


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of a row or a clip."""
    folder = BuildFolder(arguments.folder)
    if arguments.row.isdecimal():
        sections = list(explain_row(folder, int(arguments.row), rows=arguments.rows))
    else:
        sections = list(explain_clip(folder, *_named(arguments.row)))
    for title, facts in sections:
        print(title)
        for name, value in facts.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"    {name:<24} {text}")
    return 0


def explain_row(folder: BuildFolder, number: int, *, rows: Path | None = None) -> Iterator[Section]:
    """Yield the chain of one row, from what it says back to its metadata.

    Raises:
        UserError: no merged file, or no such row in it.
    """
    merged = folder.root / build_folder.MERGED
    if rows is None:
        if not merged.is_file():
            raise UserError(
                f"{folder.root} was not merged yet: give --rows, or a clip as SOURCE:CLIP"
            )
        rows = Path(read_json(merged)["file"])
    for path in (rows, provenance_file(rows)):
        if not path.is_file():
            raise UserError(f"{path} is not there: run `merge` again, or give its file as --rows")
    origin = json.loads(_line(provenance_file(rows), number, of=rows))
    first = Layout.of(rows).before.count(b"\n")
    row = json.loads(_line(rows, number + first, of=rows).rstrip(b",\n"))
    yield f"row {number} of {rows}", row
    yield "origin", origin
    yield from _about(folder, origin["source"], origin["clip_id"])
    if row["task"] == "cla_label_des":
        yield "descriptions", _describers(row["output"])
    if origin["kind"] == "open":
        yield from _of_model(folder, origin, row)


def _of_model(folder: BuildFolder, origin: Mapping[str, Any], row: Mapping[str, str]) -> list:
    """Return what was asked of a language model and what it wrote, scores and filters."""
    sections: list[Section] = []
    replies, key = folder.root / build_folder.REPLIES, origin.get("request")
    if key and replies.is_file():
        with open_ledger(replies, send=False) as ledger:
            asked, answer = ledger.asked(key), ledger.look_up([key])[key].answer
            sections.append(("request", {**(asked or {}), "calls": ledger.calls_of(key)}))
        sections += [("reply", dataclasses.asdict(answer))] if answer is not None else []
    pair = QuestionAnswer(question=row["instruction"], answer=row["output"])
    name = (origin["source"], origin["clip_id"], pair)
    scores = {gate: GateScores(folder.root).get(gate, [name])[0] for gate in GATES}
    found = {gate: score for gate, score in scores.items() if score is not None}
    sections += [("scores", found)] if found else []
    filtered = folder.file(origin["source"], build_folder.FILTER)
    if filtered.is_file():
        sections.append((build_folder.FILTER, read_json(filtered)))
    return sections


def _describers(answer: str) -> dict[str, str]:
    """Return file and version -> who wrote its descriptions, of the classes of an answer."""
    names = (part.rpartition(" -> ")[2] for part in answer.split("; "))
    about = [class_descriptions().about(name) for name in names if name in class_descriptions()]
    return {described.version: described.made_by for described in about}


def explain_clip(folder: BuildFolder, source: str, clip_id: str) -> Iterator[Section]:
    """Yield what is known of a clip, then the lines of its questions.

    Raises:
        UserError: there is no such clip.
    """
    yield from _about(folder, source, clip_id)
    for path in input_files(folder, source)[2:]:
        for line in _lines_of(path, clip_id):
            yield path.name, {name: value for name, value in line.items() if name != "clip_id"}


def _about(folder: BuildFolder, source: str, clip_id: str) -> Iterator[Section]:
    clips = _lines_of(folder.file(source, build_folder.CLIPS), clip_id)
    if not clips:
        raise UserError(
            f"{folder.file(source, build_folder.CLIPS)} has no clip {clip_id!r} (any more)"
        )
    yield f"clip {clip_id} of {source}", clips[0]
    for name in _OF_CLIP:
        for line in _lines_of(folder.file(source, name), clip_id):
            yield name, line
    build = folder.root / build_folder.BUILD
    if build.is_file():
        made = read_json(build)
        of_source = made.get("sources", {}).get(source)
        yield f"{build_folder.BUILD}, {source}", {"seed": made.get("seed"), "built of": of_source}


def _named(text: str) -> tuple[str, str]:
    source, colon, clip_id = text.partition(":")
    if not colon or source not in SOURCES or not clip_id:
        raise UserError(
            f"ROW is {text!r}: give the number of a row, or SOURCE:CLIP with one of "
            f"{', '.join(SOURCES)}"
        )
    return source, clip_id


def _line(path: Path, number: int, *, of: Path) -> bytes:
    with path.open("rb") as file:
        line = next(itertools.islice(file, number - 1, None), b"") if number > 0 else b""
    if not line.strip(b"],\n"):
        raise UserError(f"row {number} is not in {of}: rows are counted from 1")
    return line


def _lines_of(path: Path, clip_id: str) -> list[dict[str, Any]]:
    """Return the lines about a clip; the file is searched for its name before it is parsed."""
    if not path.is_file():
        return []
    name = json.dumps(clip_id, ensure_ascii=False).encode(), json.dumps(clip_id).encode()
    with path.open("rb") as file:
        lines = [json.loads(raw) for raw in file if name[0] in raw or name[1] in raw]
    return [line for line in lines if line.get("clip_id") == clip_id]
