"""The clips of one source, made in pieces that a kill costs little of.

    WORK/settings.json     of what; other settings begin anew
    WORK/read/N.jsonl      entries in the order of clip_id, `PIECE` a file; all appear at once
    WORK/made/N.jsonl      the same entries with their audio

An entry: {"clip": clip}, {"refused": {"where", "reason"}} or {"leaked": {"clip_id", "rule", "as"}}.
Each function is one job of a worker process; what it writes depends on its arguments alone.
"""

import dataclasses
import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.metadata.table_files import RecordProblems, text_lines
from data_pipelines.open_asqa import build_folder, clip_audio
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.closed_file import ClosedCounts, write_closed_ended
from data_pipelines.open_asqa.folders import GivenSource
from data_pipelines.open_asqa.recordings import names_of
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.sorted_lines import in_order
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core import staging
from ltu_jax.core.files import atomic_file, read_json, write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.preprocessing import audio

PIECE = 5_000
Entry = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceJob:
    """What a source is made of, and where.

    Attributes:
        given: its folders.
        folder: of the build.
        work: folder for pieces.
        held_out: JSON file of the recordings and audio that are tested on.
        index: file of the index of its audio folder; None without one.
    """

    given: GivenSource
    folder: BuildFolder
    work: Path
    held_out: Path
    index: Path | None


# --- clips of the metadata, in order --------------------------------------------------------------


def read(job: SourceJob) -> int:
    """Read the metadata of a source into pieces; return how many there are."""
    place = job.work / "read"
    if not place.is_dir():
        with staging.staging(place) as folder:
            new, runs = folder / staging.NEW, folder / "runs"
            new.mkdir()
            runs.mkdir()
            problems = RecordProblems()
            entries = _once(in_order(_entries(job, problems), runs))
            for number, piece in enumerate(_pieces(entries)):
                write_jsonl(new / f"{number:06d}.jsonl", piece)
            write_jsonl(new / build_folder.QUARANTINE, map(_refusal, problems.found))
            staging.swap(new, place)
    return len(list(place.glob("[0-9]*.jsonl")))


def _entries(job: SourceJob, problems: RecordProblems) -> Iterator[tuple[str, str]]:
    """Yield (clip_id, entry as JSON) of the clips that are asked for."""
    held_out = _held_out(job.held_out)["recordings"]
    chosen = None if job.given.clips is None else chosen_names(job.given.clips)
    missing = set(chosen or ())
    for clip in SOURCES[job.given.name].read(job.given.metadata, problems):
        if chosen is not None and chosen.isdisjoint((clip.clip_id, *clip.files)):
            continue
        missing.difference_update((clip.clip_id, *clip.files))
        name = next((name for name in names_of(clip) if name in held_out), None)
        if name is None:
            entry = {"clip": clip.to_json()}
        else:
            entry = {"leaked": {"clip_id": clip.clip_id, "rule": held_out[name], "as": name}}
        yield clip.clip_id, json.dumps(entry, ensure_ascii=False)
    problems.found += (
        f"{job.given.clips}: {name!r} is no clip of {job.given.name}" for name in sorted(missing)
    )


def chosen_names(path: Path) -> frozenset[str]:
    """Return the names of a list of clips, a name a line.

    Raises:
        UserError: the file is no text.
    """
    return frozenset(line.strip() for _, line in text_lines(path, what="names of clips"))


def _once(lines: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    """Yield the first entry of each clip, and refusals of the others."""
    last = None
    for clip_id, line in lines:
        entry = json.loads(line)
        if clip_id == last and "clip" in entry:
            reason = f"clip {clip_id!r} is there twice"
            entry = {"refused": {"where": entry["clip"]["where"], "reason": reason}}
        last = clip_id
        yield entry


def _pieces(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    piece: list[Entry] = []
    for entry in entries:
        piece.append(entry)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _refusal(message: str) -> dict[str, str]:
    where, colon, reason = message.partition(": ")
    return {"where": where, "reason": reason if colon else message}


@functools.lru_cache(maxsize=1)
def _held_out(path: Path) -> Mapping[str, Mapping[str, str]]:
    return json.loads(path.read_text(encoding="utf-8"))


# --- their audio ----------------------------------------------------------------------------------


def find_audio(job: SourceJob, number: int) -> int:
    """Find the audio of the clips of a piece, and test clips by it; return how many entries."""
    piece = job.work / "read" / f"{number:06d}.jsonl"
    out = job.work / "made" / piece.name
    lines = piece.read_text(encoding="utf-8").split("\n")[:-1]
    if not out.is_file():
        entries = map(json.loads, lines)
        write_jsonl(out, (_with_audio(entry, job) for entry in entries))
    return len(lines)


def _with_audio(entry: Entry, job: SourceJob) -> Entry:
    if job.index is None or "clip" not in entry:
        return entry
    clip = SourceClip.from_json(entry["clip"])
    try:
        return _found(clip, job)
    except clip_audio.NoAudio as error:
        return {"refused": {"where": clip.where, "reason": f"clip {clip.clip_id!r}: {error}"}}


def _found(clip: SourceClip, job: SourceJob) -> Entry:
    path, stem = clip_audio.find(_index(job.index, job.given.audio), clip.files)
    tested, segment = _held_out(job.held_out)["audio"], clip_audio.is_segment(clip, stem)
    samples = None
    if tested or segment:
        start, end = (clip.start, clip.end) if segment else (None, None)
        samples = clip_audio.samples(path, start=start, end=end)
    if tested and (heard := tested.get(audio.content(samples).hex())):
        benchmark, _, test_clip = heard.partition("/")
        rule = f"{benchmark}, by its audio"
        return {"leaked": {"clip_id": clip.clip_id, "rule": rule, "as": test_clip}}
    where = str(path)
    if segment:
        name = f"{clip.clip_id.replace('/', '_')}.flac"
        where = f"{clip.source}/{build_folder.AUDIO}/{name}"
        clip_audio.write_segment(samples, job.folder.root / where)
    return {"clip": dataclasses.replace(clip, audio=where, start=None, end=None).to_json()}


@functools.lru_cache(maxsize=1)
def _index(path: Path, root: Path) -> FileIndex:
    return FileIndex(path, root=root, update=False)


# --- the files of a source ------------------------------------------------------------------------


def join(job: SourceJob) -> dict[str, Any]:
    """Write the files of a source from its pieces; return what build.json says of them."""
    folder, name = job.folder, job.given.name
    folder.file(name, "").mkdir(parents=True, exist_ok=True)
    related = SOURCES[name].related_classes
    classes = related(job.given.metadata) if related is not None else None
    if classes is not None:
        write_json(folder.file(name, build_folder.RELATED_CLASSES), classes)
    else:
        folder.file(name, build_folder.RELATED_CLASSES).unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    rules: Counter[str] = Counter()

    def of(kind: str) -> Iterator[Mapping[str, Any]]:
        if kind == "refused":
            for line in _lines(job.work / "read" / build_folder.QUARANTINE):
                counts[kind] += 1
                yield line
        for piece in sorted((job.work / "made").glob("*.jsonl")):
            for entry in _lines(piece):
                if kind in entry:
                    counts[kind] += 1
                    if kind == "leaked":
                        rules[entry[kind]["rule"]] += 1
                    elif kind == "clip":
                        counts["with_audio"] += "audio" in entry[kind]
                    yield entry[kind]

    write_jsonl(folder.file(name, build_folder.QUARANTINE), of("refused"))
    write_jsonl(folder.file(name, build_folder.LEAKED), of("leaked"))
    write_jsonl(folder.file(name, build_folder.CLIPS), of("clip"))
    return {
        "clips": counts["clip"],
        "with_audio": counts["with_audio"],
        "left_out": counts["refused"],
        "of_tests": dict(sorted(rules.items())),
    }


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from map(json.loads, file)


def ask(job: SourceJob, seed: str) -> ClosedCounts:
    """Write the closed-ended questions of a source."""
    return write_closed_ended(job.folder, job.given.name, seed)


def begin(work: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder of pieces; one of other settings is emptied."""
    path = work / "settings.json"
    if path.is_file() and read_json(path) == settings:
        return
    shutil.rmtree(work, ignore_errors=True)
    (work / "made").mkdir(parents=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(settings), encoding="utf-8")
