"""One stored example: a serialised `tf.train.Example` and the record it holds."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.records.schema import AnnotatedClip, QAPair, RecordError, validate
from ltu_jax.core.errors import UserError

REWRITE = "write the records again with `python -m data_pipelines.write_records --force`"


def import_tensorflow() -> Any:
    """Import TensorFlow with every accelerator hidden from it: those belong to JAX."""
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
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredClip(AnnotatedClip):
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


def parse(
    payload: bytes, *, where: str, features_shape: tuple[int, ...] | None = None
) -> StoredClip:
    """Decode a serialised `tf.train.Example`; raises `RecordError` naming `where` and the field."""
    example_type = _example_type()
    try:
        example = example_type.FromString(payload)
    except _decode_error() as error:
        raise RecordError(f"{where}: not a tf.train.Example ({error}); {REWRITE}") from error
    fields = example.features.feature

    def values(name: str, kind: str) -> list[Any]:
        if name not in fields:
            raise RecordError(f"{where}: field {name!r} is missing; {REWRITE}")
        if fields[name].WhichOneof("kind") != _LISTS[kind]:
            items = fields[name].WhichOneof("kind")
            raise RecordError(
                f"{where}: field {name!r} holds {items}, expected {_LISTS[kind]}; {REWRITE}"
            )
        items = list(getattr(fields[name], _LISTS[kind]).value)
        if kind != "text":
            return items
        try:
            return [item.decode("utf-8") for item in items]
        except UnicodeDecodeError as error:
            raise RecordError(
                f"{where}: field {name!r} is not UTF-8 ({error}); {REWRITE}"
            ) from error

    scalars = {}
    for name, kind in _SCALARS.items():
        items = values(name, kind)
        if len(items) != 1:
            raise RecordError(
                f"{where}: field {name!r} holds {len(items)} values, expected 1; {REWRITE}"
            )
        scalars[name] = items[0]
    columns = {name: values(f"pairs/{name}", kind) for name, kind in _PAIR_FIELDS.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise RecordError(f"{where}: the fields of 'pairs' differ in length: {lengths}; {REWRITE}")
    columns["closed_ended"] = [bool(value) for value in columns["closed_ended"]]
    pairs = tuple(
        QAPair(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )
    features = None
    if features_shape is not None:
        flat = np.asarray(values("features", "float"), np.float32)
        if flat.size != np.prod(features_shape):
            raise RecordError(
                f"{where}: field 'features' holds {flat.size} numbers, expected shape "
                f"{features_shape}; {REWRITE}"
            )
        features = flat.reshape(features_shape)
    scalars["synthetic"] = bool(scalars["synthetic"])
    record = StoredClip(
        **scalars, tags=tuple(values("tags", "text")), pairs=pairs, features=features
    )
    validate(record, where=where)
    return record


@functools.cache
def _example_type() -> Any:
    return import_tensorflow().train.Example


@functools.cache
def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError
