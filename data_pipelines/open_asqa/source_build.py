"""The clips of one source, made in pieces that a kill costs little of.

    WORK/settings.json     of what; other settings begin anew
    WORK/read/N.txt        lines in the order of clip_id, `PIECE` a file; all appear at once
    WORK/made/N.txt        the same with their audio

A line is the name of the file that it belongs to, a tab, and its JSON: a clip of clips.jsonl, a
refused row of quarantine.jsonl or a test clip of leaked.jsonl. Each function is one job of a worker
process; what it writes depends on its arguments alone.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
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
from data_pipelines.records.line_buckets import read_lines
from ltu_jax.core import staging
from ltu_jax.core.files import atomic_file, read_json, write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.preprocessing import audio

PIECE = 5_000
_MARK = "\t"


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
            lines = _once(in_order(_entries(job, problems), runs))
            for number in itertools.count():
                piece = list(itertools.islice(lines, PIECE))
                if not piece:
                    break
                _write(new / f"{number:06d}.txt", piece)
            write_jsonl(new / build_folder.QUARANTINE, map(_refusal, problems.found))
            staging.swap(new, place)
    return len(list(place.glob("*.txt")))


def _entries(job: SourceJob, problems: RecordProblems) -> Iterator[tuple[str, str]]:
    """Yield (clip_id, line) of the clips that are asked for."""
    held_out = _held_out(job.held_out)["recordings"]
    by_file = any(name.startswith("name:") for name in held_out)
    chosen = None if job.given.clips is None else chosen_names(job.given.clips)
    missing = set(chosen or ())
    for clip in SOURCES[job.given.name].read(job.given.metadata, problems):
        if chosen is not None and chosen.isdisjoint((clip.clip_id, *clip.files)):
            continue
        missing.difference_update((clip.clip_id, *clip.files))
        names = names_of(clip) if by_file else clip.recordings
        name = next((name for name in names if name in held_out), None)
        if name is None:
            yield clip.clip_id, _line(build_folder.CLIPS, clip.to_json())
        else:
            leaked = {"clip_id": clip.clip_id, "rule": held_out[name], "as": name}
            yield clip.clip_id, _line(build_folder.LEAKED, leaked)
    problems.found += (
        f"{job.given.clips}: {name!r} is no clip of {job.given.name}" for name in sorted(missing)
    )


def _line(file: str, record: Mapping[str, Any]) -> str:
    return f"{file}{_MARK}{json.dumps(record, ensure_ascii=False)}"


def _write(path: Path, lines: Iterable[str]) -> None:
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(f"{line}\n" for line in lines)


def chosen_names(path: Path) -> frozenset[str]:
    """Return the names of a list of clips, a name a line.

    Raises:
        UserError: the file is no text.
    """
    return frozenset(line.strip() for _, line in text_lines(path, expected="names of clips"))


def _once(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the first line of each clip, and refusals of the others."""
    last = None
    for clip_id, line in lines:
        if clip_id != last:
            yield line
        else:
            file, _, text = line.partition(_MARK)
            where = json.loads(text)["where"] if file == build_folder.CLIPS else file
            refusal = {"where": where, "reason": f"clip {clip_id!r} is there twice"}
            yield _line(build_folder.QUARANTINE, refusal)
        last = clip_id


def _refusal(message: str) -> dict[str, str]:
    where, colon, reason = message.partition(": ")
    return {"where": where, "reason": reason if colon else message}


@functools.lru_cache(maxsize=1)
def _held_out(path: Path) -> Mapping[str, Mapping[str, str]]:
    return json.loads(path.read_text(encoding="utf-8"))


# --- their audio ----------------------------------------------------------------------------------


def find_audio(job: SourceJob, number: int) -> int:
    """Find the audio of the clips of a piece, and test clips by it; return how many lines."""
    out = job.work / "made" / f"{number:06d}.txt"
    lines = list(read_lines(job.work / "read" / out.name))
    if not out.is_file():
        _write(out, lines if job.index is None else (_with_audio(line, job) for line in lines))
    return len(lines)


def _with_audio(line: str, job: SourceJob) -> str:
    file, _, text = line.partition(_MARK)
    if file != build_folder.CLIPS:
        return line
    clip = SourceClip.from_json(json.loads(text))
    try:
        return _found(clip, job)
    except clip_audio.NoAudio as error:
        refusal = {"where": clip.where, "reason": f"clip {clip.clip_id!r}: {error}"}
        return _line(build_folder.QUARANTINE, refusal)


def _found(clip: SourceClip, job: SourceJob) -> str:
    path, stem = clip_audio.find(_index(job.index, job.given.audio), clip.files)
    tested, segment = _held_out(job.held_out)["audio"], clip_audio.is_segment(clip, stem)
    samples = None
    if tested or segment:
        start, end = (clip.start, clip.end) if segment else (None, None)
        samples = clip_audio.samples(path, start=start, end=end)
    if tested and (heard := tested.get(audio.content(samples).hex())):
        benchmark, _, test_clip = heard.partition("/")
        rule = f"{benchmark}, by its audio"
        leaked = {"clip_id": clip.clip_id, "rule": rule, "as": test_clip}
        return _line(build_folder.LEAKED, leaked)
    where = str(path)
    if segment:
        name = f"{clip.clip_id.replace('/', '_')}.flac"
        where = f"{clip.source}/{build_folder.AUDIO}/{name}"
        clip_audio.write_segment(samples, job.folder.root / where)
    found = dataclasses.replace(clip, audio=where, start=None, end=None)
    return _line(build_folder.CLIPS, found.to_json())


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
    counts, rules = Counter(), Counter()
    files = (build_folder.CLIPS, build_folder.QUARANTINE, build_folder.LEAKED)
    with contextlib.ExitStack() as stack:
        out = {}
        for file in files:
            temporary = stack.enter_context(atomic_file(folder.file(name, file)))
            out[file] = stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
        for line in _made(job):
            file, _, text = line.partition(_MARK)
            out[file].write(f"{text}\n")
            counts[file] += 1
            if file == build_folder.LEAKED:
                rules[json.loads(text)["rule"]] += 1
        for stream in out.values():
            stream.flush()
            os.fsync(stream.fileno())  # the pieces are deleted next
    clips = counts[build_folder.CLIPS]
    return {
        "clips": clips,
        "with_audio": clips if job.index is not None else 0,
        "left_out": counts[build_folder.QUARANTINE],
        "of_tests": dict(sorted(rules.items())),
    }


def _made(job: SourceJob) -> Iterator[str]:
    """Yield the lines of all pieces, what was refused while they were read first."""
    for text in read_lines(job.work / "read" / build_folder.QUARANTINE):
        yield f"{build_folder.QUARANTINE}{_MARK}{text}"
    for piece in sorted((job.work / "made").glob("*.txt")):
        yield from read_lines(piece)


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
