"""One stored example: a serialised `tf.train.Example` and the record it holds."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

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
_EXAMPLE = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "BytesList" field {
    name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList" field {
    name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List" field {
    name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
    type_name: ".tensorflow.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
    type_name: ".tensorflow.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE
    type_name: ".tensorflow.Int64List" oneof_index: 0 } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
    type_name: ".tensorflow.Features.FeatureEntry" }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
      type_name: ".tensorflow.Feature" } } }
message_type { name: "Example" field {
    name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
    type_name: ".tensorflow.Features" } }
"""
_LISTS = {"bytes": "bytes_list", "text": "bytes_list", "int": "int64_list", "float": "float_list"}


def parse(
    payload: bytes, *, where: str, features_shape: tuple[int, ...] | None = None
) -> StoredClip:
    """Decode a serialised `tf.train.Example`; raises `RecordError` naming `where` and the field."""
    try:
        example = _example_type().FromString(payload)
    except DecodeError as error:
        raise RecordError(f"{where}: not a tf.train.Example ({error}); {REWRITE}") from error
    fields = example.features.feature

    def require(name: str, kind: str) -> None:
        if name not in fields:
            raise RecordError(f"{where}: field {name!r} is missing; {REWRITE}")
        if fields[name].WhichOneof("kind") != _LISTS[kind]:
            items = fields[name].WhichOneof("kind")
            raise RecordError(
                f"{where}: field {name!r} holds {items}, expected {_LISTS[kind]}; {REWRITE}"
            )

    def values(name: str, kind: str) -> list[Any]:
        require(name, kind)
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
        require("features", "float")
        flat = _floats(fields["features"].float_list)
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


def _floats(stored: Any) -> np.ndarray:
    """Return the numbers of a FloatList: the end of its own bytes, as they are packed."""
    count = len(stored.value)
    content = stored.SerializeToString()
    return np.frombuffer(content, "<f4", offset=len(content) - 4 * count).astype(np.float32)


@functools.cache
def _example_type() -> Any:
    """Make the type of `tf.train.Example` without the seconds that TensorFlow takes to import.

    It has a pool of its own: in protobuf's there is TensorFlow's type of that name.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
