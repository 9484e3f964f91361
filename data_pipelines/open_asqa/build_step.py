"""Make clips and closed-ended questions of the sources.

    python -m data_pipelines.open_asqa build --sources sources.toml --out asqa
    python -m data_pipelines.open_asqa build --sources sources.toml --out asqa --only clotho,fma

Each source of sources.toml becomes a folder below --out: clips.jsonl, quarantine.jsonl (rows that
are broken, clips without audio), leaked.jsonl (clips that benchmarks test on), closed_ended.jsonl.
DIR/leakage.json counts the latter by rule, and names benchmarks that nothing was compared with:
give their folders in the table [benchmarks].

The same sources and seed make the same bytes, whatever the number of workers. A build that was
stopped, even by kill -9, goes on where it was. Sources that have not changed are left as they are.
"""

import argparse
import concurrent.futures
import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.open_asqa import build_folder, held_out_file, source_build
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.class_descriptions import description_files
from data_pipelines.open_asqa.closed_file import ClosedCounts
from data_pipelines.open_asqa.folders import GivenSource, first_file, listing
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_build import SourceJob
from data_pipelines.open_asqa.sources_file import GivenData, read_sources
from data_pipelines.open_asqa.text_tables import table
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.core.lock import RunLock
from ltu_jax.core.processes import pool_of

MAKER = outputs.Maker(name="`python -m data_pipelines.open_asqa build`")
WORK = ".build"  # in --out: indexes of audio, what was heard of tests, pieces of sources
_FORMAT = 1  # of clips.jsonl; a new one makes all anew
_WORDINGS = "wordings.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument(
        "--sources", type=Path, required=True, help="TOML file with a table for each source"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the build")
    parser.add_argument(
        "--only", default="", metavar="NAME,...", help="these sources alone (default: all given)"
    )
    parser.add_argument("--seed", default="0", help="of the draws of questions (default: 0)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )


def run(flags: argparse.Namespace) -> int:
    """Build what is not built yet, and print a table."""
    if flags.workers < 1:
        raise UserError(f"--workers is {flags.workers}; it must be at least 1")
    given = read_sources(flags.sources)
    chosen = given.only(tuple(name.strip() for name in flags.only.split(",") if name.strip()))
    for source in chosen.values():
        require_files(source)
    reads = [flags.sources, *(source.metadata for source in chosen.values())]
    reads += [source.audio for source in chosen.values()]
    place = outputs.join(
        flags.out, MAKER, names=(*SOURCES, build_folder.BUILD, build_folder.LEAKAGE), inputs=reads
    )
    write_json(place / outputs.MARKER, outputs.signature(MAKER))
    with RunLock(place, job="an Open-ASQA build").hold(), pool_of(flags.workers) as pool:
        reports = _Build(given, BuildFolder(place), seed=flags.seed, pool=pool).make(chosen)
    print(summary(reports, read_json(place / build_folder.LEAKAGE)))
    return 0


def require_files(source: GivenSource) -> None:
    """Raise `UserError` where a published file of a source is missing."""
    missing = [
        name
        for name in SOURCES[source.name].files
        if first_file(source.metadata, name.split("|")) is None
    ]
    if missing:
        raise UserError(
            f"{source.name}: {source.metadata} has no {shorten(missing)}, there or in its folders; "
            "`check` lists what each source needs"
        )


class _Build:
    """The sources that are built, and how far each one is."""

    def __init__(self, given: GivenData, folder: BuildFolder, *, seed: str, pool: Executor):
        self._given, self._folder, self._seed, self._pool = given, folder, seed, pool
        self._questions = {"seed": seed, "texts": _texts()}
        self._work = folder.root / WORK
        self._work.mkdir(exist_ok=True)
        self._indexes: dict[Path, tuple[Path, str]] = {}
        self._waiting: dict[Future, Any] = {}
        self._bar = tqdm(desc="building", unit="clip", unit_scale=True, disable=None)

    def make(self, chosen: Mapping[str, GivenSource]) -> dict[str, dict[str, Any]]:
        """Build the sources; return the reports of all that the folder has."""
        path = self._folder.root / build_folder.BUILD
        about = read_json(path) if path.is_file() else {"sources": {}}
        self._reports, self._about = {}, {"seed": self._seed, "sources": about["sources"]}
        try:
            self._held_out, tests = held_out_file.write(self._given, self._work, pool=self._pool)
            for name, source in chosen.items():
                self._start(name, source)
            with self._bar:
                self._finish()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended by the system, perhaps for lack of memory: run the "
                "same command again, with fewer --workers; it goes on where it was"
            ) from None
        finally:
            for future in self._waiting:
                future.cancel()
        self._save()
        built = {
            name: self._about["sources"][name] for name in SOURCES if name in self._about["sources"]
        }
        rules = {name: report["of_tests"] for name, report in built.items()}
        total = held_out_file.names_of_rules(built.values())
        leaked = {"tests": tests, "left_out": total, "sources": rules}
        write_json(self._folder.root / build_folder.LEAKAGE, leaked)
        return built

    def _start(self, name: str, source: GivenSource) -> None:
        index, files = self._index(source.audio)
        settings = {
            "format": _FORMAT,
            "metadata": _metadata(source),
            "audio": None if source.audio is None else [str(source.audio), files],
            "clips": None if source.clips is None else sha256_file(source.clips),
            "held_out": self._held_out.stem,
        }
        job = SourceJob(
            given=source,
            folder=self._folder,
            work=self._work / name,
            held_out=self._held_out,
            index=index,
        )
        before = self._about["sources"].get(name)
        there = self._folder.file(name, build_folder.CLIPS).is_file()
        if before is not None and before["settings"] == settings and there:
            self._reports[name] = before
            self._ask(job)
            return
        self._about["sources"].pop(name, None)  # what is there is of other settings
        self._save()
        source_build.begin(job.work, settings)
        self._reports[name] = {"settings": settings}
        self._submit(source_build.read, job, then=self._split)

    def _index(self, folder: Path | None) -> tuple[Path | None, str]:
        """Return the index of an audio folder, made or brought up to date, and a hash of it."""
        if folder is None:
            return None, ""
        if folder not in self._indexes:
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            path = self._work / f"audio-{name}.sqlite"
            index = FileIndex(path, root=folder)
            self._indexes[folder] = path, index.listing()
            index.close()
        return self._indexes[folder]

    def _submit(self, function: Any, job: SourceJob, *rest: Any, then: Any) -> None:
        self._waiting[self._pool.submit(function, job, *rest)] = (job, then)

    def _finish(self) -> None:
        while self._waiting:
            done, _ = concurrent.futures.wait(self._waiting, return_when=FIRST_COMPLETED)
            for future in done:
                job, then = self._waiting.pop(future)
                then(job, future.result())

    def _split(self, job: SourceJob, pieces: int) -> None:
        """Give out the pieces of a source that was read."""
        left = [pieces]

        def made(job: SourceJob, entries: int) -> None:
            self._bar.update(entries)
            left[0] -= 1
            if not left[0]:
                self._submit(source_build.join, job, then=self._joined)

        for number in range(pieces):
            self._submit(source_build.find_audio, job, number, then=made)
        if not pieces:
            self._submit(source_build.join, job, then=self._joined)

    def _joined(self, job: SourceJob, report: dict[str, Any]) -> None:
        self._reports[job.given.name] |= report
        self._ask(job)

    def _ask(self, job: SourceJob) -> None:
        """Write the closed-ended questions, unless they are there with the same seed and texts."""
        report = self._reports[job.given.name]
        there = self._folder.file(job.given.name, build_folder.CLOSED_ENDED).is_file()
        if there and report.get("questions") == self._questions:
            self._done(job)
            return
        report.pop("questions", None)  # those that are there are of other draws, until all are made
        self._save()
        self._submit(source_build.ask, job, self._seed, then=self._asked)

    def _asked(self, job: SourceJob, counts: ClosedCounts) -> None:
        report = self._reports[job.given.name]
        report.pop("undescribed", None)  # so that the order of the keys is that of a new build
        report |= {
            "questions": self._questions,
            "undescribed": dict(sorted(counts.undescribed.items())),
        }
        self._done(job)

    def _done(self, job: SourceJob) -> None:
        self._about["sources"][job.given.name] = self._reports[job.given.name]
        self._save()
        shutil.rmtree(job.work, ignore_errors=True)

    def _save(self) -> None:
        write_json(self._folder.root / build_folder.BUILD, self._about)


def _metadata(source: GivenSource) -> dict[str, str]:
    """Return name -> hash of the files that a source is read from."""
    entry = SOURCES[source.name]
    hashes = {}
    for name in (*entry.files, *entry.optional):
        path = first_file(source.metadata, name.split("|"))
        if path is not None:
            hashes[path.name] = sha256_file(path)
    if entry.folders:
        hashes["all files"] = listing(source.metadata)
    return hashes


def _texts() -> str:
    files = [resources.files(__package__).joinpath(_WORDINGS), *description_files()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def summary(reports: Mapping[str, Mapping[str, Any]], leakage: Mapping[str, Any]) -> str:
    """Write what was built as a table, and what no test was compared with."""
    rows = [
        (
            name,
            report["clips"],
            report["with_audio"],
            report["left_out"],
            sum(report["of_tests"].values()),
            len(report["undescribed"]),
        )
        for name, report in reports.items()
    ]
    heads = ("source", "clips", "with audio", "left out", "of tests", "classes undescribed")
    total = [sum(row[place] for row in rows) for place in range(1, len(heads))]
    lines = [table(heads, [*rows, ("all", *total)])]
    lines += [f"left out as of tests: {rule}: {n:,}" for rule, n in leakage["left_out"].items()]
    if leakage["tests"]["not_checked"]:
        names = ", ".join(leakage["tests"]["not_checked"])
        lines.append(f"not compared with {names}: name their folders in [benchmarks]")
    return "\n".join(lines)
