"""Records as tensorflow_datasets knows them: names of shards, serialised examples, metadata."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.records import record_files
from data_pipelines.records.schema import QAPair
from data_pipelines.records.tf_example import import_tensorflow
from ltu_jax.core.errors import UserError

import_tensorflow()  # before tfds does, so that it sees no accelerator
try:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer
    from tensorflow_datasets.core.folder_dataset import write_metadata
except ImportError as error:
    raise UserError(
        f"writing records needs tensorflow-datasets ({error}); run `make env`"
    ) from error


def shard_name(split: str, *, number: int, shards: int) -> str:
    """Return the file name of a shard."""
    return f"{record_files.BUILDER}-{split}.tfrecord-{number:05d}-of-{shards:05d}"


def _features(shape: tuple[int, ...] | None) -> tfds.features.FeaturesDict:
    text = tfds.features.Text()
    pair = {f.name: np.bool_ if f.type is bool else text for f in dataclasses.fields(QAPair)}
    features = {
        "clip_id": text,
        "audio": tfds.features.Tensor(shape=(), dtype=np.object_, doc="FLAC, 16 kHz mono"),
        "sample_rate": tfds.features.Scalar(np.int32, doc="Hz"),
        "seconds": np.float32,
        "spoken_text": tfds.features.Text(doc="Whisper's transcript"),
        "dataset": text,
        "split": text,
        "synthetic": np.bool_,
        "tags": tfds.features.Sequence(text),
        "pairs": tfds.features.Sequence(pair),
    }
    if shape is not None:
        features["features"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    return tfds.features.FeaturesDict(features)


@functools.cache
def _serializer(shape: tuple[int, ...] | None) -> tuple[Any, ExampleSerializer]:
    features = _features(shape)
    return features, ExampleSerializer(features.get_serialized_info())


def serialise(example: Mapping[str, Any], *, shape: tuple[int, ...] | None) -> bytes:
    """Return an example as a `tf.train.Example`, the same bytes in every process."""
    features, serializer = _serializer(shape)
    message = serializer.get_tf_example(features.encode_example(example))
    return message.SerializeToString(deterministic=True)


def write_dataset_info(
    folder: Path, *, splits: Mapping[str, Sequence[Mapping[str, Any]]], shape: tuple | None
) -> None:
    """Write the metadata of tfds beside the shards; `splits` has the headers of their indexes."""
    write_metadata(
        data_dir=str(folder),
        features=_features(shape),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[header["records"] for header in headers],
                num_bytes=sum(header["bytes"] for header in headers),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder,
                    dataset_name=record_files.BUILDER,
                    split=name,
                    filetype_suffix="tfrecord",
                ),
            )
            for name, headers in splits.items()
        ],
        filename_template=None,
        check_data=False,
        description="Open-ASQA clips with their question-answer pairs, one record per clip.",
    )
