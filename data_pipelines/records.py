"""A records directory on disk: names, manifest, index, and random access to one record.

    DIR/manifest.json                     counts, shards with SHA-256, source, stored features
    DIR/tag_labels.json                   labels of the tagging stage, when the corpus has them
    DIR/index/<shard>.jsonl               a line per record: where it lies, CRC-32, its pairs
    DIR/open_asqa_records/1.0.0/<shard>   TFRecord shards and metadata of the tfds builder

The index makes every record reachable by (shard, offset, length), so the order of training can be a
permutation of numbers; the clips themselves are read only when they are needed.
"""

import contextlib
import dataclasses
import functools
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.schema import Clip, Pair, RecordError, validate
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file

FORMAT = 1
MANIFEST = "manifest.json"
TAG_LABELS = "tag_labels.json"
INDEX = "index"
BUILDER = "open_asqa_records"
VERSION = "1.0.0"

_FRAME_HEAD = 12  # TFRecord: uint64 length and its CRC, the payload, the payload's CRC
_FRAME_TAIL = 4


def import_tensorflow() -> Any:
    """TensorFlow with every accelerator hidden from it: those belong to JAX."""
    try:
        with _quiet():
            import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"TFRecords need TensorFlow ({error}); run `make env`, or pip install tensorflow-cpu"
        ) from error
    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what TensorFlow's C++ prints on loading, before its log level is heeded."""
    if "tensorflow" in sys.modules:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(Clip):
    """One clip as stored: `audio` FLAC bytes, 16 kHz mono; `features` float32 [W, A, D] or None."""

    features: np.ndarray | None = None


_SCALARS = {
    "clip_id": "text", "audio": "bytes", "sample_rate": "int", "seconds": "float",
    "spoken_text": "text", "dataset": "text", "split": "text", "synthetic": "int",
}  # fmt: skip
_PAIR_FIELDS = {
    "pair_id": "text", "instruction": "text", "output": "text", "task": "text",
    "closed_ended": "int",
}  # fmt: skip
_LISTS = {"bytes": "bytes_list", "text": "bytes_list", "int": "int64_list", "float": "float_list"}


def parse(payload: bytes, *, where: str, features_shape: tuple[int, ...] | None = None) -> Record:
    """Decode a serialised `tf.train.Example`; raises `RecordError` naming `where` and the field."""
    example_type = _example_type()
    try:
        example = example_type.FromString(payload)
    except _decode_error() as error:
        raise RecordError(f"{where}: not a tf.train.Example ({error}); {_REWRITE}") from error
    fields = example.features.feature

    def values(name: str, kind: str) -> list[Any]:
        if name not in fields:
            raise RecordError(f"{where}: field {name!r} is missing; {_REWRITE}")
        if fields[name].WhichOneof("kind") != _LISTS[kind]:
            found = fields[name].WhichOneof("kind")
            raise RecordError(
                f"{where}: field {name!r} holds {found}, expected {_LISTS[kind]}; {_REWRITE}"
            )
        found = list(getattr(fields[name], _LISTS[kind]).value)
        return [item.decode("utf-8") for item in found] if kind == "text" else found

    scalars = {}
    for name, kind in _SCALARS.items():
        found = values(name, kind)
        if len(found) != 1:
            raise RecordError(
                f"{where}: field {name!r} holds {len(found)} values, expected 1; {_REWRITE}"
            )
        scalars[name] = found[0]
    columns = {name: values(f"pairs/{name}", kind) for name, kind in _PAIR_FIELDS.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise RecordError(f"{where}: the fields of 'pairs' differ in length: {lengths}; {_REWRITE}")
    columns["closed_ended"] = [bool(value) for value in columns["closed_ended"]]
    pairs = tuple(
        Pair(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    )
    features = None
    if features_shape is not None:
        flat = np.asarray(values("features", "float"), np.float32)
        if flat.size != np.prod(features_shape):
            raise RecordError(
                f"{where}: field 'features' holds {flat.size} numbers, expected shape "
                f"{features_shape}; {_REWRITE}"
            )
        features = flat.reshape(features_shape)
    scalars["synthetic"] = bool(scalars["synthetic"])
    record = Record(**scalars, tags=tuple(values("tags", "text")), pairs=pairs, features=features)
    validate(record, where=where)
    return record


_REWRITE = "write the records again with `python -m data_pipelines.write_records --force`"


@functools.cache
def _example_type() -> Any:
    return import_tensorflow().train.Example


@functools.cache
def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


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
                raise RecordError(f"{path}, record {number}: the file ends inside it; {_REWRITE}")
            yield offset + _FRAME_HEAD, payload
            offset += _FRAME_HEAD + length + _FRAME_TAIL
            number += 1


def index_shard(path: Path, *, features_shape: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """The index lines of one shard: a header with size and SHA-256, then one line per record."""
    lines = []
    for number, (offset, payload) in enumerate(frames(path)):
        record = parse(payload, where=f"{path}, record {number}", features_shape=features_shape)
        asked = len(record.spoken_text)
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
                    [pair.task, pair.closed_ended, asked + len(pair.instruction) + len(pair.output)]
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
    """Write `index_shard` of one shard as `out/<shard>.jsonl`; returns the shard's name."""
    lines = index_shard(path, features_shape=features_shape)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (out / f"{path.name}.jsonl").write_text(text, encoding="utf-8")
    return path.name


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """manifest.json of a records directory; `UserError` when there is none of this format."""
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{directory} is not a records directory (no {MANIFEST}); write one with "
            f"`python -m data_pipelines.write_records --corpus DIR --out {directory}`"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {_REWRITE}") from error
    if (
        not isinstance(manifest, Mapping)
        or manifest.get("kind") != "records"
        or manifest.get("ltu_jax") != FORMAT
    ):
        raise UserError(f"{path} does not describe records of format {FORMAT}; {_REWRITE}")
    return manifest


def verify(directory: str | Path, *, checksums: bool) -> dict[str, Any]:
    """Check that every shard and index is there, with the right size and, if asked, SHA-256.

    Returns:
        The manifest.

    Raises:
        UserError: naming the first file that is not as the manifest says.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = shard_path(directory, shard["file"])
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                raise UserError(
                    f"{path}: size is {size} bytes, {MANIFEST} says {shard['bytes']}; {_REWRITE}"
                )
            if checksums and sha256_file(path) != shard["sha256"]:
                raise UserError(f"{path}: its SHA-256 differs from {MANIFEST}; {_REWRITE}")
            if not (directory / INDEX / f"{shard['file']}.jsonl").is_file():
                raise UserError(f"{directory / INDEX}: no index of {shard['file']}; {_REWRITE}")
    return manifest


def shard_path(directory: str | Path, name: str) -> Path:
    """Where a shard lies in a records directory."""
    return Path(directory) / BUILDER / VERSION / name


# --- random access --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
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


class RecordStore:
    """The records of one split, by number; `read` may be called from many threads at once."""

    def __init__(self, directory: str | Path, *, split: str):
        """Open a records directory; sizes are checked now, the CRC of a record when it is read."""
        self.directory = Path(directory)
        self.manifest = verify(directory, checksums=False)
        splits = self.manifest["splits"]
        if split not in splits:
            raise UserError(
                f"{directory} has no split {split!r}; it has {', '.join(sorted(splits))}"
            )
        self.split = split
        stored = self.manifest["features"]
        self.features_shape = None if stored is None else tuple(stored["shape"])
        self.entries: tuple[Entry, ...] = tuple(
            entry for shard in splits[split]["shards"] for entry in self._entries(shard["file"])
        )

    def __len__(self) -> int:
        return len(self.entries)

    def _entries(self, shard: str) -> Iterator[Entry]:
        path = self.directory / INDEX / f"{shard}.jsonl"
        with open(path, encoding="utf-8") as file:
            header = json.loads(file.readline())
            lines = [json.loads(line) for line in file]
        if header["records"] != len(lines):
            raise UserError(f"{path}: {len(lines)} of {header['records']} lines; {_REWRITE}")
        for number, line in enumerate(lines):
            yield Entry(
                shard=shard,
                number=number,
                tags=tuple(line["tags"]),
                pairs=tuple(map(tuple, line["pairs"])),
                **{
                    key: line[key]
                    for key in ("offset", "length", "crc32", "clip_id", "dataset", "seconds")
                },
            )

    def where(self, number: int) -> str:
        """How messages call a record: file, place in the file, clip."""
        entry = self.entries[number]
        path = shard_path(self.directory, entry.shard)
        return f"{path}, record {entry.number} (clip {entry.clip_id!r})"

    def read(self, number: int) -> Record:
        """Read and check one record.

        Raises:
            RecordError: the shard is gone or cut short, the CRC differs, a field is missing; the
                message names file and record.
        """
        entry = self.entries[number]
        path = shard_path(self.directory, entry.shard)
        try:
            with open(path, "rb") as file:
                file.seek(entry.offset)
                payload = file.read(entry.length)
        except OSError as error:
            raise RecordError(
                f"{self.where(number)}: cannot read it: {error.strerror}; {_REWRITE}"
            ) from error
        if len(payload) != entry.length or zlib.crc32(payload) != entry.crc32:
            raise RecordError(
                f"{self.where(number)}: checksum differs, the file is damaged; {_REWRITE}"
            )
        return parse(payload, where=self.where(number), features_shape=self.features_shape)
