"""Join all questions and answers of a build to one file of official rows.

    python -m data_pipelines.open_asqa merge DIR --out open_asqa.json
    python -m data_pipelines.open_asqa merge DIR --out speech.jsonl --only iemocap,libritts
    python -m data_pipelines.open_asqa merge DIR --out open_asqa.json --shuffle-seed 0
    python -m data_pipelines.open_asqa merge DIR --out open_asqa.json --records asqa_records

Every source gives what it has: closed-ended rows, and the open-ended ones that `filter` accepted
(all of them where it has not run). A file of another ending than .jsonl is one JSON list, a row a
line. Beside it come OUT.provenance.jsonl, whose line N tells where row N is from, and
OUT.licences.json, which `write_records` takes into its records. The same build gives the same
bytes. A merging that was killed goes on where it was; OUT.merging holds it meanwhile.

--records lets `python -m data_pipelines.write_records` go on from there, which does nothing where
valid records of these rows are.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from data_pipelines.manifests.clip_manifests import LICENCES
from data_pipelines.manifests.row_writer import LINES, Layout, RowWriter, as_json
from data_pipelines.open_asqa import build_folder, sorted_lines
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.merged_rows import MergedRow, SourceRows, input_files
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json

_FORMAT = 1  # of the work folder
_ROWS, _ORIGINS, _STATE, _LOCK, _RUNS = "rows", "provenance", "state.json", "lock", "runs"
_OFTEN = 100_000  # rows between two places from which a killed merging goes on
_COUNTS = ("clips", "closed", "open", "silent", "left over")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `merge`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that `build` made")
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write: .json (a list) or .jsonl"
    )
    parser.add_argument(
        "--only", default="", metavar="SOURCES", help="some of the sources, by comma"
    )
    parser.add_argument(
        "--shuffle-seed", type=int, help="shuffle the rows by a hash of this number and the row"
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help="write the rows and their audio as TFRecords too",
    )
    parser.add_argument(
        "--records-options",
        default="",
        metavar="TEXT",
        help="options of write_records, as one text: --records-options='--tokenizer LLAMA_WEIGHTS'",
    )


def run(arguments: argparse.Namespace) -> int:
    """Merge and print a table of what was merged; write records if asked to.

    Raises:
        UserError: what `merge` raises, or --records-options of no use.
    """
    given = arguments.records_options
    if given and arguments.records is None:
        raise UserError("--records-options are about --records DIR: give both, or neither")
    try:
        options = shlex.split(given)
    except ValueError as error:
        raise UserError(
            f"--records-options {given!r} has a quote without its other half"
        ) from error
    order = MergeOrder(
        folder=BuildFolder(arguments.folder),
        out=arguments.out,
        only=tuple(filter(None, map(str.strip, arguments.only.split(",")))),
        shuffle_seed=arguments.shuffle_seed,
    )
    with tqdm(desc="merging", unit="row", unit_scale=True, disable=None) as bar:
        counts = merge(order, progress=bar.update)
    print(_table(counts))
    print(f"{order.out}: {sum(c['closed'] + c['open'] for c in counts.values()):,} rows")
    if arguments.records is None:
        return 0
    return _write_records(order.out, arguments.records, options)


def _write_records(rows: Path, out: Path, options: Sequence[str]) -> int:
    """Write rows as TFRecords by their own command; return its status."""
    command = ["data_pipelines.write_records", "--json", str(rows), "--out", str(out), *options]
    print(f"python -m {shlex.join(command)}", flush=True)
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeOrder:
    """What is merged into which file.

    Attributes:
        folder: the build.
        out: file of rows.
        only: sources; () for all that are built.
        shuffle_seed: None keeps the order of the sources.
    """

    folder: BuildFolder
    out: Path
    only: tuple[str, ...] = ()
    shuffle_seed: int | None = None

    def beside(self, ending: str) -> Path:
        """Return the place of a file or folder that goes with the rows."""
        return self.out.absolute().with_name(f"{self.out.name}.{ending}")

    def sources(self) -> list[str]:
        """Return the sources to merge, in the order of the registry.

        Raises:
            UserError: one that does not exist or is not built.
        """
        built = self.folder.sources()
        for name in self.only:
            if name not in SOURCES:
                raise UserError(f"--only {name} is no source; sources are {', '.join(SOURCES)}")
            if name not in built:
                raise UserError(
                    f"--only {name}: {self.folder.root} has no clips of it, only of "
                    f"{', '.join(built)}; build it first"
                )
        return [name for name in built if not self.only or name in self.only]


def provenance_file(rows: Path) -> Path:
    """Return the file whose line N tells where row N of a merged file is from."""
    return rows.absolute().with_name(f"{rows.name}.provenance.jsonl")


def _before(path: Path) -> tuple[()] | None:
    """Recognise our own output by the files beside it."""
    return () if provenance_file(path).is_file() else None


MAKER = outputs.Maker(
    name="`python -m data_pipelines.open_asqa merge`", folder=False, before=_before
)


def merge(
    order: MergeOrder, *, progress: Callable[[int], object] = lambda rows: None
) -> dict[str, Counter[str]]:
    """Write the rows; return source -> clips, closed, open, silent, left over.

    Raises:
        UserError: the place is taken, a file of the build is broken, or there is no row.
    """
    sources = order.sources()
    inputs = [path for name in sources for path in input_files(order.folder, name)]
    outputs.claim(order.out, MAKER, inputs=inputs)
    work = order.beside("merging")
    with _locked(work):
        counts = _Merging(order, sources, work).run(progress)
        if not sum(count["closed"] + count["open"] for count in counts.values()):
            shutil.rmtree(work)
            raise UserError(
                f"{order.folder.root} has no question and answer of {', '.join(sources)}: run "
                "`build` to the end, or `generate`"
            )
        rows, origins = work / _ROWS, work / _ORIGINS
        if order.shuffle_seed is not None:
            rows, origins = _shuffled(order, work)
        write_json(order.out.absolute().with_name(f"{order.out.name}{LICENCES}"), _licences(work))
        os.replace(origins, provenance_file(order.out))
        os.replace(rows, order.out.resolve())
        merged = {"file": str(order.out.absolute()), "sources": sources}
        write_json(order.folder.root / build_folder.MERGED, merged)
        shutil.rmtree(work)
    return counts


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Hold the work folder, so that two mergings do not write the same file."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{work} is in use by another `merge`: wait for it, or give another --out"
            ) from None
        except OSError:  # a disk without locks
            pass
        yield


class _Merging:
    """The rows in the order of the sources, with places from which to go on."""

    def __init__(self, order: MergeOrder, sources: list[str], work: Path):
        self._order, self._sources, self._work = order, sources, work
        # A shuffled list gets its brackets and commas when it is shuffled.
        self._layout = LINES if order.shuffle_seed is not None else Layout.of(order.out)
        signatures = [self._signature(name) for name in sources]
        self._of = [_FORMAT, self._layout == LINES, signatures]

    def _signature(self, source: str) -> list[Any]:
        facts = []
        for path in input_files(self._order.folder, source):
            found = path.stat() if path.is_file() else None
            facts.append([path.name, *((found.st_size, found.st_mtime_ns) if found else ())])
        return [source, facts]

    def run(self, progress: Callable[[int], object]) -> dict[str, Counter[str]]:
        """Write what is not written yet; return the counts of all sources."""
        state = self._state()
        self._counts = {name: Counter(of) for name, of in state["counts"].items()}
        self._licences = Counter({tuple(key): number for *key, number in state["licences"]})
        progress(sum(count["closed"] + count["open"] for count in self._counts.values()))
        with (
            _opened(self._work / _ROWS, state["bytes"][0]) as self._rows,
            _opened(self._work / _ORIGINS, state["bytes"][1]) as self._origins,
        ):
            self._writer = RowWriter(self._rows, self._layout)
            places = state["places"]
            for number in range(state["source"], len(self._sources)):
                self._merge_source(number, places, progress)
                places = None
            if self._rows.tell():
                self._writer.finish()
        return self._counts

    def _merge_source(
        self, number: int, places: list[int] | None, progress: Callable[[int], object]
    ) -> None:
        name = self._sources[number]
        before, since = self._counts.get(name, Counter()), 0
        with SourceRows(self._order.folder, name, places=places) as source:
            for clip, made in source.clips():
                for row in made:
                    self._write(row)
                for dataset in {row.fields["dataset"] for row in made}:
                    self._licences[dataset, clip.licence] += 1
                progress(len(made))
                since += len(made)
                if since >= _OFTEN:
                    self._counts[name] = before + source.counts
                    self._save(number, source.places)
                    since = 0
            self._counts[name] = before + source.counts
        self._save(number + 1, None)

    def _write(self, row: MergedRow) -> None:
        self._writer.write(row.fields)
        self._origins.write(as_json(row.origin) + b"\n")

    def _save(self, source: int, places: list[int] | None) -> None:
        """Note how far the files are whole, once they are on the disk that far."""
        for file in (self._rows, self._origins):
            file.flush()
            os.fsync(file.fileno())
        state = {
            "of": self._of,
            "source": source,
            "places": places,
            "bytes": [self._rows.tell(), self._origins.tell()],
            "counts": self._counts,
            "licences": [[*key, number] for key, number in sorted(self._licences.items())],
        }
        write_json(self._work / _STATE, state)

    def _state(self) -> dict[str, Any]:
        """Return how far a killed merging of the same files came."""
        path = self._work / _STATE
        if path.is_file():
            state = read_json(path)
            there = [_size(self._work / name) for name in (_ROWS, _ORIGINS)]
            if state["of"] == self._of and all(
                size >= least for size, least in zip(there, state["bytes"], strict=True)
            ):
                return state
        return {"source": 0, "places": None, "bytes": [0, 0], "counts": {}, "licences": []}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _opened(path: Path, size: int) -> BinaryIO:
    """Open a file to write on behind its first `size` bytes, whatever is there now."""
    file = path.open("r+b" if path.is_file() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _licences(work: Path) -> dict[str, dict[str, int]]:
    """Return dataset -> licence -> clips of what was merged."""
    licences: dict[str, dict[str, int]] = {}
    for dataset, licence, clips in read_json(work / _STATE)["licences"]:
        licences.setdefault(dataset, {})[licence] = clips
    return licences


def _shuffled(order: MergeOrder, work: Path) -> tuple[Path, Path]:
    """Write the rows and origins again, in the order of a hash of the seed and each origin."""

    def named() -> Iterator[tuple[str, str]]:
        # JSON has no tabs and line feeds but between its values.
        with (work / _ROWS).open("rb") as rows, (work / _ORIGINS).open("rb") as origins:
            for number, (row, origin) in enumerate(zip(rows, origins, strict=True)):
                seed = f"{order.shuffle_seed}/{number}/".encode()
                key = hashlib.sha256(seed + origin).hexdigest()[:16]
                yield key, f"{origin.decode().rstrip()}\t{row.decode().rstrip()}"

    runs = work / _RUNS
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir()
    places = (work / f"shuffled_{_ROWS}", work / f"shuffled_{_ORIGINS}")
    with places[0].open("wb") as rows, places[1].open("wb") as origins:
        writer = RowWriter(rows, Layout.of(order.out))
        for _, line in sorted_lines.in_order(named(), runs):
            origin, _, row = line.partition("\t")
            writer.write_json(row.encode())
            origins.write(f"{origin}\n".encode())
        writer.finish()
    return places


def _table(counts: Mapping[str, Counter[str]]) -> str:
    """Write the counts as a table for the terminal."""
    total: Counter[str] = Counter()
    rows = [("source", "clips", "closed", "open", "no spoken text", "lines of gone clips")]
    for name, of in counts.items():
        total.update(of)
        rows.append((name, *(f"{of[key]:,}" for key in _COUNTS)))
    rows.append(("all", *(f"{total[key]:,}" for key in _COUNTS)))
    return "\n".join(f"{row[0]:<15}" + "".join(f"{cell:>20}" for cell in row[1:]) for row in rows)
