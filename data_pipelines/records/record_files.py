"""A records directory on disk: names, manifest, index, and random access to one record.

    DIR/manifest.json                     counts, shards with SHA-256, source, stored features
    DIR/tag_labels.json                   labels of the tagging stage, when the corpus has them
    DIR/quarantine.jsonl                  a line per clip left out, whose audio cannot be read
    DIR/index/<shard>.jsonl               a line per record: where it lies, CRC-32, its pairs
    DIR/index/<shard>.npz                 the same as arrays (`record_index`)
    DIR/open_asqa_records/1.0.0/<shard>   TFRecord shards and metadata of the tfds builder

The index makes every record reachable by (shard, offset, length), so the order of training can be a
permutation of numbers; the clips themselves are read only when they are needed.
"""

import functools
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.records import record_index
from data_pipelines.records.record_index import IndexEntry, RecordIndex
from data_pipelines.records.schema import RecordError
from data_pipelines.records.tf_example import REWRITE, StoredClip, parse
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import inside, read_json, sha256_file
from ltu_jax.core.outputs import Maker
from ltu_jax.core.paths import (
    as_path,
    failures,
    in_turn,
    is_remote,
    read_range,
    reason,
    size_of,
    sizes_in,
)

FORMAT = 1
MANIFEST = "manifest.json"
TAG_LABELS = "tag_labels.json"
QUARANTINE = "quarantine.jsonl"
INDEX = "index"
BUILDER = "open_asqa_records"
VERSION = "1.0.0"

# What older versions wrote, and what is computed from records and kept beside them.
_FILES = (MANIFEST, TAG_LABELS, QUARANTINE)
_LATER = (f"{INDEX}/*", f"{BUILDER}/{VERSION}/*", "tokens/*")


def _written_before(path: Path) -> tuple[str, ...] | None:
    try:
        read_manifest(path)
    except UserError:
        return None
    return _FILES


MAKER = Maker(name="`python -m data_pipelines.write_records`", before=_written_before, later=_LATER)

_FRAME_HEAD = 12  # TFRecord: uint64 length and its CRC, the payload, the payload's CRC
_FRAME_TAIL = 4
_PIECE = 8 << 20  # bytes
_NO_FILE = -1
_TOO_SHORT = "the file ends before it does"


# --- index ----------------------------------------------------------------------------------------


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (payload offset, payload) of each record of a TFRecord file.

    Raises:
        RecordError: the file is cut short.
    """
    offset, number = 0, 0
    with open(path, "rb") as file:
        while head := file.read(_FRAME_HEAD):
            whole = len(head) == _FRAME_HEAD
            length = struct.unpack("<Q", head[:8])[0] if whole else 0
            payload = file.read(length) if whole else b""
            if len(payload) < length or len(file.read(_FRAME_TAIL)) < _FRAME_TAIL:
                raise RecordError(f"{path}, record {number}: the file ends inside it; {REWRITE}")
            yield offset + _FRAME_HEAD, payload
            offset += _FRAME_HEAD + length + _FRAME_TAIL
            number += 1


def index_shard(path: Path, *, features_shape: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """Make the index lines of a shard: a header with size and SHA-256, then one per record."""
    lines = []
    for number, (offset, payload) in enumerate(frames(path)):
        record = parse(payload, where=f"{path}, record {number}", features_shape=features_shape)
        spoken = len(record.spoken_text)
        lines.append(
            {
                "clip_id": record.clip_id,
                "offset": offset,
                "length": len(payload),
                "crc32": zlib.crc32(payload),
                "dataset": record.dataset,
                "seconds": record.seconds,
                "synthetic": record.synthetic,
                "tags": record.tags,
                "pairs": [
                    [
                        pair.task,
                        pair.closed_ended,
                        spoken + len(pair.instruction) + len(pair.output),
                    ]
                    for pair in record.pairs
                ],
            }
        )
    header = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "records": len(lines),
    }
    return [header, *lines]


def write_index(path: Path, *, out: Path, features_shape: tuple[int, ...] | None) -> str:
    """Write `index_shard` of one shard as `out/<shard>.jsonl`; returns the shard's name.

    The CRC-32 of that file belongs into the manifest as "index_crc32". The same as arrays goes
    beside it (`record_index`).
    """
    lines = index_shard(path, features_shape=features_shape)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (out / f"{path.name}.jsonl").write_text(text, encoding="utf-8")
    columns = record_index.of_lines(lines[1:], shard=path.name)
    record_index.save(out / f"{path.name}.npz", columns, source=zlib.crc32(text.encode()))
    return path.name


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """Read manifest.json of a records directory; raises `UserError` when it has not this format."""
    path = as_path(directory) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{directory} is not a records directory (no {MANIFEST}); write one with "
            f"`python -m data_pipelines.write_records --corpus DIR --out {directory}`"
        )
    try:
        manifest = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {REWRITE}") from error
    if (
        not isinstance(manifest, Mapping)
        or manifest.get("kind") != "records"
        or manifest.get("ltu_jax") != FORMAT
    ):
        raise UserError(f"{path} does not describe records of format {FORMAT}; {REWRITE}")
    _check_shards(manifest.get("splits"), path=path)
    return manifest


_SHARD = {"file": str, "bytes": int, "sha256": str, "records": int}


def _check_shards(splits: Any, *, path: Path) -> None:
    """Require a list of shards of each split, every one a file of this directory."""
    folder, index = path.parent / BUILDER / VERSION, path.parent / INDEX
    if not isinstance(splits, Mapping):
        raise UserError(f"{path} is damaged: its splits are {str(splits)[:60]!r}; {REWRITE}")
    for name, split in splits.items():
        shards = split.get("shards") if isinstance(split, Mapping) else None
        if not isinstance(shards, list):
            raise UserError(f"{path} is damaged: split {name!r} has no list of shards; {REWRITE}")
        for shard in shards:
            kinds = shard if isinstance(shard, Mapping) else {}
            wrong = [key for key, kind in _SHARD.items() if type(kinds.get(key)) is not kind]
            if wrong:
                raise UserError(
                    f"{path} is damaged: a shard of split {name!r} has no {wrong[0]}; {REWRITE}"
                )
            inside(folder, shard["file"], where=path)
            for ending in (".jsonl", ".npz"):
                inside(index, f"{shard['file']}{ending}", where=path)


def verify(directory: str | Path) -> dict[str, Any]:
    """Check that every shard and index is there, as long and with the SHA-256 it was written with.

    Returns:
        The manifest.

    Raises:
        UserError: naming the first file that is not as the manifest says.
    """
    directory = as_path(directory)
    manifest = read_manifest(directory)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            if reason := shard_problem(directory, shard):
                raise UserError(f"{reason}; {REWRITE}")
            index_lines(directory, shard)
    return manifest


def shard_problem(directory: str | Path, shard: Mapping[str, Any]) -> str | None:
    """Describe how a shard differs from its entry in the manifest; None when it does not."""
    path = shard_path(directory, shard["file"])
    size = size_of(path) if path.is_file() else None
    if size != shard["bytes"]:
        return f"{path}: size is {size} bytes, {MANIFEST} says {shard['bytes']}"
    if sha256_file(path) != shard["sha256"]:
        return f"{path}: its SHA-256 differs from {MANIFEST}"
    return None


def index_path(directory: str | Path, shard: str) -> Path:
    """Return the path of a shard's index."""
    return as_path(directory) / INDEX / f"{shard}.jsonl"


def index_lines(directory: str | Path, shard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read the lines of a shard's index, one per record.

    Raises:
        UserError: it is gone, damaged, or not as long as the manifest says.
    """
    path = index_path(directory, shard["file"])
    if not path.is_file():
        raise UserError(f"{as_path(directory) / INDEX}: no index of {shard['file']}; {REWRITE}")
    content = path.read_bytes()
    # Records of earlier versions carry no checksum of their index.
    if zlib.crc32(content) != shard.get("index_crc32", zlib.crc32(content)):
        raise UserError(f"{path}: its checksum differs from {MANIFEST}; {REWRITE}")
    try:
        _, *lines = map(json.loads, content.splitlines())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {REWRITE}") from error
    if len(lines) != shard["records"]:
        raise UserError(f"{path}: {len(lines)} of {shard['records']} lines; {REWRITE}")
    return lines


def shard_path(directory: str | Path, name: str) -> Path:
    """Return the path of a shard in a records directory."""
    return as_path(directory) / BUILDER / VERSION / name


# --- random access --------------------------------------------------------------------------------


def read_index(directory: str | Path, shard: Mapping[str, Any]) -> RecordIndex:
    """Read the index of a shard; raises as `index_lines` does."""
    arrays = index_path(directory, shard["file"]).with_suffix(".npz")
    source = shard.get("index_crc32")
    columns = None if source is None else record_index.load(arrays, source=source)
    if columns is not None and set(columns.shard_names) - {shard["file"]}:
        columns = None  # of another shard: made again
    if columns is None:
        columns = record_index.of_lines(index_lines(directory, shard), shard=shard["file"])
        if source is not None:
            record_index.keep(arrays, columns, source=source)
    return columns


def where(directory: str | Path, entry: IndexEntry) -> str:
    """Name a record for messages: file, place in the file, clip."""
    path = shard_path(directory, entry.shard)
    return f"{path}, record {entry.number} (clip {entry.clip_id!r})"


def read_payload(directory: str | Path, entry: IndexEntry) -> bytes:
    """Read the bytes of one record.

    Raises:
        RecordError: the shard is gone or cut short, the CRC differs; the message names file and
            record.
    """
    return _checked(_read(directory, entry, size=entry.length), entry, directory=directory)


def read_payloads(directory: str | Path, entries: RecordIndex) -> Iterator[bytes | RecordError]:
    """Yield the bytes of all records of a shard in their order, or why they cannot be had.

    They are read in pieces of several MB: a bucket takes its time to answer at all.
    """
    ends, begin = entries.offset + entries.length, 0
    while begin < len(entries):
        start = int(entries.offset[begin])
        end = max(begin + 1, int(np.searchsorted(ends, start + _PIECE, side="right")))
        try:
            piece = _read(directory, entries[begin], size=int(ends[end - 1]) - start)
        except RecordError:
            piece = None  # each record for itself, by its own name
        for entry in map(entries.__getitem__, range(begin, end)):
            place = entry.offset - start
            try:
                if piece is None:
                    yield read_payload(directory, entry)
                else:
                    payload = piece[place : place + entry.length]
                    yield _checked(payload, entry, directory=directory)
            except RecordError as error:
                yield error
        begin = end


def _read(directory: str | Path, entry: IndexEntry, *, size: int) -> bytes:
    """Read `size` bytes from the beginning of a record on; fewer where the file ends."""
    path = shard_path(directory, entry.shard)
    try:
        return read_range(path, start=entry.offset, size=size)
    except failures(path) as error:
        disk = "bucket" if is_remote(path) else "disk"
        gone = disk == "disk" and isinstance(error, FileNotFoundError)  # a bucket may be gone too
        advice = REWRITE if gone else f"see that its {disk} can be read and holds that file"
        place = where(directory, entry)
        raise RecordError(f"{place}: cannot read it: {reason(error)}; {advice}") from error


def _checked(payload: bytes, entry: IndexEntry, *, directory: str | Path) -> bytes:
    if len(payload) < entry.length:
        raise RecordError(f"{where(directory, entry)}: {_TOO_SHORT}; {REWRITE}")
    if zlib.crc32(payload) != entry.crc32:
        damaged = "checksum differs, the file is damaged"
        raise RecordError(f"{where(directory, entry)}: {damaged}; {REWRITE}")
    return payload


def read_entry(
    directory: str | Path, entry: IndexEntry, *, features_shape: tuple[int, ...] | None
) -> StoredClip:
    """Read and check one record.

    Raises:
        RecordError: as `read_payload`, or a field is missing.
    """
    payload = read_payload(directory, entry)
    return parse(payload, where=where(directory, entry), features_shape=features_shape)


class RecordStore:
    """The records of one split, by number; `read` may be called from many threads at once."""

    def __init__(self, directory: str | Path, *, split: str):
        """Open a records directory; a record is checked when it is read, by its CRC."""
        self.directory = as_path(directory)
        self.manifest = read_manifest(directory)
        splits = self.manifest["splits"]
        if split not in splits:
            raise UserError(
                f"{directory} has no split {split!r}; it has {', '.join(sorted(splits))}"
            )
        self.split = split
        stored = self.manifest["features"]
        self.features_shape = None if stored is None else tuple(stored["shape"])
        self._shards = splits[split]["shards"]
        self.entries: RecordIndex = record_index.join(
            in_turn(self._shards, functools.partial(read_index, directory), remote=directory)
        )

    def __len__(self) -> int:
        return len(self.entries)

    def where(self, number: int) -> str:
        """Name a record for messages: file, place in the file, clip."""
        return where(self.directory, self.entries[number])

    def read(self, number: int) -> StoredClip:
        """Read and check one record; raises as `read_entry` does."""
        entry = self.entries[number]
        return read_entry(self.directory, entry, features_shape=self.features_shape)

    def cut_off(self) -> dict[int, str]:
        """Find records behind the end of their file, without reading them: number -> error."""
        there = sizes_in(shard_path(self.directory, "shard").parent)
        sizes = [there.get(name, _NO_FILE) for name in self.entries.shard_names]
        ends = self.entries.offset + self.entries.length
        sizes = np.asarray(sizes, np.int64)[self.entries.shard]
        return {
            number: f"{self.where(number)}: "
            + ("there is no such file" if sizes[number] == _NO_FILE else _TOO_SHORT)
            + f"; {REWRITE}"
            for number in np.flatnonzero(ends > sizes).tolist()
        }

    def find(self, clip_id: str) -> int | None:
        """Find the number of the record of a clip; None where there is none."""
        name, ends = clip_id.encode(), self.entries.clip_ends
        begins = np.r_[0, ends[:-1]]
        place = self.entries.clip_ids.find(name)
        while place >= 0:
            number, end = int(np.searchsorted(begins, place)), place + len(name)
            if number < len(ends) and (begins[number], ends[number]) == (place, end):
                return number
            place = self.entries.clip_ids.find(name, place + 1)
        return None
