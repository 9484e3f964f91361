"""One shard of records, written whole by whichever process has it to do.

    WORK/shards/<shard>         TFRecord file, under its name only when it is complete
    WORK/index/<shard>.*        its index
    WORK/sealed/<shard>.json    written last: what it was made from, its header, clips left out
    WORK/failed/<shard>.txt     an error that ends the whole writing

A shard that is sealed, whole and made from the same lines by the same settings is not written
again: a killed writing goes on where it was. What a shard holds follows from its lines alone.
"""

import dataclasses
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import soundfile

from data_pipelines.records import record_files
from data_pipelines.records.clip_lines import ClipLine, fields_of, from_line, lines_of_shard
from data_pipelines.records.quarantine import entry
from data_pipelines.records.schema import AnnotatedClip, RecordError, audio_bytes, validate
from data_pipelines.records.tf_example import import_tensorflow
from data_pipelines.records.tfds_format import serialise, shard_name
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.preprocessing import audio

PARTS, SHARDS, SEALED, FAILED = "parts", "shards", "sealed", "failed"
_VERSION = 1  # of what a shard is made of; a change of its bytes changes every seal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardItem:
    """A work item: one shard of one split, and the folder that all workers share.

    `features` is what the manifest says of the extractor's numbers, as JSON.
    """

    work: Path
    split: str
    number: int
    shards: int
    extractor: FeatureExtractor | None
    features: str | None

    @property
    def name(self) -> str:
        """The file name of the shard."""
        return shard_name(self.split, number=self.number, shards=self.shards)

    @property
    def seal(self) -> Path:
        """The file that says the shard is complete."""
        return self.work / SEALED / f"{self.name}.json"


def write_shard(item: ShardItem) -> str:
    """Write a shard unless it is there already; return its name. An error is left in a file."""
    try:
        _write(item)
    except UserError as error:
        path = item.work / FAILED / f"{item.name}.txt"
        path.write_text(str(error), encoding="utf-8")
    return item.name


def _write(item: ShardItem) -> None:
    lines = lines_of_shard(item.work / PARTS, split=item.split, number=item.number)
    source = _source(lines, item.features)
    path = item.work / SHARDS / item.name
    if _is_whole(item, path=path, source=source):
        return
    item.seal.unlink(missing_ok=True)
    shape = None if item.extractor is None else item.extractor.shape
    left_out: list[dict[str, Any]] = []
    # A runner may have an item done twice at once: each writes a file of its own.
    temporary = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
    with import_tensorflow().io.TFRecordWriter(str(temporary)) as file:
        for example in _with_features(_examples(lines, left_out), item.extractor):
            file.write(serialise(example, shape=shape))
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    record_files.write_index(path, out=item.work / record_files.INDEX, features_shape=shape)
    header = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    header["records"] = len(lines) - len(left_out)
    write_json(item.seal, {"source": source, "header": header, "left_out": left_out})


def _source(lines: Iterable[ClipLine], features: str | None) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, features]).encode())
    for line in lines:
        digest.update(line.text.encode())
    return digest.hexdigest()


def _is_whole(item: ShardItem, *, path: Path, source: str) -> bool:
    """Tell whether a sealed shard of this source is there with the bytes that its seal names."""
    if not item.seal.is_file():
        return False
    seal = read_json(item.seal)
    header = seal["header"]
    return (
        seal["source"] == source
        and path.is_file()
        and path.stat().st_size == header["bytes"]
        and sha256_file(path) == header["sha256"]
    )


def _examples(lines: Iterable[ClipLine], left_out: list[dict[str, Any]]) -> Iterator[dict]:
    """Yield the examples of clips; those that cannot be used go to `left_out`."""
    for line in lines:
        clip = from_line(line.clip)
        try:
            yield to_example(clip)
        except RecordError as error:
            left_out.append(dataclasses.asdict(entry(clip, reason=str(error))))


def _with_features(examples: Iterable[dict], extractor: FeatureExtractor | None) -> Iterator[dict]:
    """Yield the examples, each with its Whisper features where there is an extractor."""
    if extractor is None:
        yield from examples
        return
    batch: list[dict] = []
    for example in examples:
        batch.append(example)
        if len(batch) == extractor.batch_size:
            yield from _featured(batch, extractor)
            batch = []
    if batch:
        yield from _featured(batch, extractor)


def _featured(batch: list[dict], extractor: FeatureExtractor) -> Iterator[dict]:
    windows = [
        audio.model_log_mel(
            audio.load_audio(example["audio"]).samples,
            n_mels=extractor.n_mels,
            frames=audio.CLIP_FRAMES,
        ).log_mel
        for example in batch
    ]
    for example, features in zip(batch, extractor(windows), strict=True):
        yield example | {"features": features}


# --- one clip -------------------------------------------------------------------------------------


def to_flac(encoded: bytes, *, where: str) -> tuple[bytes, float]:
    """Encode an audio file as 16 kHz mono FLAC.

    Args:
        encoded: the file's bytes; it is decoded in any case, as a check.
        where: how an error calls it.

    Returns:
        FLAC bytes, the given ones when they are such a file already, and their seconds.

    Raises:
        RecordError: the file cannot be decoded.
    """
    try:
        decoded = audio.load_audio(encoded)
    except audio.AudioError as error:
        raise RecordError(f"{where}: field 'audio': {error}") from error
    as_is = (decoded.source_rate, decoded.source_channels) == (audio.SAMPLE_RATE, 1)
    if as_is and encoded.startswith(b"fLaC"):
        return encoded, decoded.seconds
    buffer = io.BytesIO()
    soundfile.write(buffer, decoded.samples, audio.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue(), decoded.seconds


def to_example(clip: AnnotatedClip) -> dict[str, Any]:
    """Make the tfds example of one clip; raises `RecordError` naming clip and field."""
    validate(clip)
    where = f"clip {clip.clip_id!r}"
    if isinstance(clip.audio, Path):
        where += f" ({clip.audio})"
    flac, seconds = to_flac(audio_bytes(clip), where=where)
    return fields_of(clip) | {"audio": flac, "sample_rate": audio.SAMPLE_RATE, "seconds": seconds}
