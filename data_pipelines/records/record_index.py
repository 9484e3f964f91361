"""The index of records as arrays: of millions of records it is read in a second, not in minutes.

    DIR/index/<shard>.npz     the same as <shard>.jsonl beside it, whose CRC-32 it names

Written with the records. Where it is absent, damaged or of another index, it is made again from the
JSON lines, and kept if the folder can be written.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.records.array_cache import load_arrays
from ltu_jax.core.files import atomic_file
from ltu_jax.core.paths import failures

_RECORD = {"offset": np.int64, "length": np.int64, "crc32": np.int64, "seconds": np.float64}
_ARRAYS = (*_RECORD, "shard", "number", "clip_ends", "dataset", "tag_ends", "tags", "pair_ends",
           "tasks", "closed", "characters")  # fmt: skip
_NAMES = ("shard_names", "dataset_names", "tag_names", "task_names")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """Where a record lies and what it holds; `pairs` are (task, closed_ended, characters)."""

    shard: str
    number: int
    offset: int
    length: int
    crc32: int
    clip_id: str
    dataset: str
    seconds: float
    tags: tuple[str, ...]
    pairs: tuple[tuple[str, bool, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordIndex(Sequence):
    """Entries as arrays, and a sequence of `IndexEntry`.

    Attributes:
        shard, dataset: [R], places in `shard_names` and `dataset_names`.
        number, offset, length, crc32, seconds: [R], as in `IndexEntry`.
        clip_ids: UTF-8 of all ids, one after another; that of record r ends at `clip_ends[r]`.
        tags, tasks: places in `tag_names`, and [P] in `task_names`; those of record r end at
            `tag_ends[r]` and `pair_ends[r]`.
        closed, characters: [P].
    """

    shard: np.ndarray
    number: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc32: np.ndarray
    seconds: np.ndarray
    clip_ids: bytes
    clip_ends: np.ndarray
    dataset: np.ndarray
    tags: np.ndarray
    tag_ends: np.ndarray
    tasks: np.ndarray
    pair_ends: np.ndarray
    closed: np.ndarray
    characters: np.ndarray
    shard_names: tuple[str, ...]
    dataset_names: tuple[str, ...]
    tag_names: tuple[str, ...]
    task_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, number: int) -> IndexEntry:
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        pairs = _part(self.pair_ends, number)
        return IndexEntry(
            shard=self.shard_names[self.shard[number]],
            number=int(self.number[number]),
            offset=int(self.offset[number]),
            length=int(self.length[number]),
            crc32=int(self.crc32[number]),
            clip_id=self.clip_ids[_part(self.clip_ends, number)].decode(),
            dataset=self.dataset_names[self.dataset[number]],
            seconds=float(self.seconds[number]),
            tags=tuple(self.tag_names[tag] for tag in self.tags[_part(self.tag_ends, number)]),
            pairs=tuple(
                (self.task_names[task], bool(closed), int(characters))
                for task, closed, characters in zip(
                    self.tasks[pairs], self.closed[pairs], self.characters[pairs], strict=True
                )
            ),
        )

    @functools.cached_property
    def pair_begins(self) -> np.ndarray:
        """[R], the number of the first pair of each record among all pairs."""
        return self.pair_ends - self.pair_counts

    @functools.cached_property
    def pair_counts(self) -> np.ndarray:
        """[R], pairs of each record."""
        return np.diff(self.pair_ends, prepend=0)

    @property
    def tagged(self) -> np.ndarray:
        """[R], whether a record has tags."""
        return np.diff(self.tag_ends, prepend=0) > 0


def of_entries(entries: Sequence[IndexEntry]) -> RecordIndex:
    """Make an index of entries; names go into tables in the order of their first use."""
    tables = [_Table() for _ in range(4)]
    shards, datasets, tags, tasks = tables
    ids = [entry.clip_id.encode() for entry in entries]
    pairs = [pair for entry in entries for pair in entry.pairs]
    return RecordIndex(
        **{name: np.asarray([getattr(e, name) for e in entries], kind)
           for name, kind in _RECORD.items()},
        shard=shards.places(entry.shard for entry in entries),
        number=np.asarray([entry.number for entry in entries], np.int32),
        clip_ids=b"".join(ids),
        clip_ends=_ends(map(len, ids)),
        dataset=datasets.places(entry.dataset for entry in entries),
        tags=tags.places(tag for entry in entries for tag in entry.tags),
        tag_ends=_ends(len(entry.tags) for entry in entries),
        tasks=tasks.places(task for task, _, _ in pairs),
        pair_ends=_ends(len(entry.pairs) for entry in entries),
        closed=np.asarray([closed for _, closed, _ in pairs], bool),
        characters=np.asarray([characters for _, _, characters in pairs], np.int32),
        **{name: table.names for name, table in zip(_NAMES, tables, strict=True)},
    )  # fmt: skip


def join(parts: Sequence[RecordIndex]) -> RecordIndex:
    """Join the indexes of several shards, one after another."""
    if len(parts) == 1:
        return parts[0]
    tables = {name: _Table() for name in _NAMES}
    coded = {"shard": "shard_names", "dataset": "dataset_names", "tags": "tag_names",
             "tasks": "task_names"}  # fmt: skip
    joined: dict[str, Any] = {"clip_ids": b"".join(part.clip_ids for part in parts)}
    for name in _ARRAYS:
        arrays, before = [], 0
        for part in parts:
            values = getattr(part, name)
            if name in coded:
                names = getattr(part, coded[name])
                values = tables[coded[name]].places(names)[values]
            elif name.endswith("_ends"):
                values, before = values + before, before + (values[-1] if len(values) else 0)
            arrays.append(values)
        joined[name] = np.concatenate(arrays)
    return RecordIndex(**joined, **{name: table.names for name, table in tables.items()})


def save(path: Path, columns: RecordIndex, *, source: int) -> None:
    """Write columns as an npz without pickles; `source` is the CRC-32 of the JSON lines."""
    arrays = {name: getattr(columns, name) for name in _ARRAYS}
    texts = {name: json.dumps(getattr(columns, name)).encode() for name in _NAMES}
    texts["clip_ids"] = columns.clip_ids
    blobs = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    with atomic_file(path) as out:
        np.savez(out, source=np.int64(source), **arrays, **blobs)


def load(path: Path, *, source: int) -> RecordIndex | None:
    """Load the index of the JSON lines with this CRC-32; None where there is no such file."""
    data = load_arrays(path)
    if data is None or not {*_ARRAYS, *_NAMES, "clip_ids", "source"} <= data.keys():
        return None  # a damaged copy is no loss: it is made again
    if int(data["source"]) != source:
        return None
    arrays = {name: data[name] for name in _ARRAYS}
    texts = {name: data[name].tobytes() for name in (*_NAMES, "clip_ids")}
    names = {name: tuple(json.loads(texts[name])) for name in _NAMES}
    return RecordIndex(**arrays, **names, clip_ids=texts["clip_ids"])


def of_lines(lines: Sequence[Mapping[str, Any]], *, shard: str) -> RecordIndex:
    """Make an index of the parsed JSON lines of a shard."""
    return of_entries(
        [
            IndexEntry(
                shard=shard,
                number=number,
                tags=tuple(line["tags"]),
                pairs=tuple(map(tuple, line["pairs"])),
                **{key: line[key] for key in (*_RECORD, "clip_id", "dataset")},
            )
            for number, line in enumerate(lines)
        ]
    )


def keep(path: Path, columns: RecordIndex, *, source: int) -> None:
    """Save where the folder can be written."""
    with contextlib.suppress(*failures(path)):
        save(path, columns, source=source)


class _Table:
    """Names and their places, in the order of first use."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def places(self, names: Iterator[str] | Sequence[str]) -> np.ndarray:
        places = [self._places.setdefault(name, len(self._places)) for name in names]
        return np.asarray(places, np.int32)


def _ends(sizes: Any) -> np.ndarray:
    return np.cumsum(np.fromiter(sizes, np.int64))


def _part(ends: np.ndarray, number: int) -> slice:
    return slice(int(ends[number - 1]) if number else 0, int(ends[number]))
