"""The Beam pipeline that writes records, as a tfds builder; `write_records` is its command.

Clips are staged as one JSON line each, encoded by whichever runner is used, shuffled into shards by
a hash of their id, and every finished shard is read back to make its index and checksums.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from data_pipelines.records import record_files
from data_pipelines.records.schema import AnnotatedClip, QAPair, RecordError, audio_bytes, validate
from data_pipelines.records.tf_example import import_tensorflow
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing import audio

logging.disable(logging.WARNING)  # Beam warns at import that it found no Google Cloud client
try:
    import apache_beam as beam
    import tensorflow_datasets as tfds
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise UserError(
        f"writing records needs apache-beam and tensorflow-datasets ({error}); run `make env`"
    ) from error
finally:
    logging.disable(logging.NOTSET)

# Beam's "DirectRunner" may first try to download and start another runner (Prism); this is the
# in-process one itself.
_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamRunner:
    """Where Beam runs a pipeline: a runner's name ("DirectRunner": this process) and its flags."""

    name: str = "DirectRunner"
    flags: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """What Beam is told to run on."""
        return _IN_PROCESS if self.name == "DirectRunner" else self.name

    @property
    def options(self) -> PipelineOptions:
        """The flags as Beam takes them."""
        return PipelineOptions(list(self.flags))


progress: tqdm | None = None  # set by a writer in this process; workers elsewhere have none


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
    return _fields(clip) | {"audio": flac, "sample_rate": audio.SAMPLE_RATE, "seconds": seconds}


def to_line(clip: AnnotatedClip) -> str:
    """Write a clip whose audio is a path as one line of JSON."""
    return json.dumps(_fields(clip) | {"audio": str(Path(clip.audio).resolve())})


def from_line(line: str) -> AnnotatedClip:
    """Read what `to_line` writes."""
    fields = json.loads(line)
    fields["audio"] = Path(fields["audio"])
    fields["tags"] = tuple(fields["tags"])
    fields["pairs"] = tuple(QAPair(**pair) for pair in fields["pairs"])
    return AnnotatedClip(**fields)


def _fields(clip: AnnotatedClip) -> dict[str, Any]:
    fields = {field.name: getattr(clip, field.name) for field in dataclasses.fields(AnnotatedClip)}
    pairs = [dataclasses.asdict(pair) for pair in clip.pairs]
    return fields | {"tags": list(clip.tags), "pairs": pairs}


# --- the pipeline ---------------------------------------------------------------------------------


class _Encode(beam.DoFn):
    """A staged line -> (clip id, example); a clip that cannot be used is noted and left out."""

    def __init__(self, problems: Path):
        self._problems = problems

    def process(self, line: str) -> Iterator[tuple[str, dict[str, Any]]]:
        clip = from_line(line)
        try:
            example = to_example(clip)
        except RecordError as error:
            name = hashlib.sha256(clip.clip_id.encode()).hexdigest()
            problem = {"clip_id": clip.clip_id, "reason": str(error)}
            (self._problems / name).write_text(json.dumps(problem), encoding="utf-8")
            return
        if progress is not None:
            progress.update()
        yield clip.clip_id, example


class _AddFeatures(beam.DoFn):
    """A batch of (clip id, example) -> each with its Whisper features."""

    def __init__(self, extractor: FeatureExtractor):
        self._extractor = extractor

    def process(
        self, batch: Sequence[tuple[str, dict[str, Any]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        n_mels = self._extractor.n_mels
        windows = [
            audio.model_log_mel(
                audio.load_audio(example["audio"]).samples, n_mels=n_mels, frames=audio.CLIP_FRAMES
            ).log_mel
            for _, example in batch
        ]
        for (key, example), features in zip(batch, self._extractor(windows), strict=True):
            yield key, example | {"features": features}


class OpenAsqaRecords(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clips with their question-answer pairs, one record per clip, from staged lines."""

    name = record_files.BUILDER
    VERSION = tfds.core.Version(record_files.VERSION)

    def __init__(
        self,
        *,
        staging: Path,
        splits: Sequence[str],
        extractor: FeatureExtractor | None,
        **kwargs: Any,
    ):
        self._staging, self._splits, self._extractor = staging, splits, extractor
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
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
        if self._extractor is not None:
            shape = self._extractor.shape
            features["features"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Open-ASQA clips with their question-answer pairs, one record per clip.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(
        self, dl_manager: Any, pipeline: beam.Pipeline
    ) -> dict[str, beam.PCollection]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(pipeline, split=split) for split in self._splits}

    def _generate_examples(self, pipeline: beam.Pipeline, *, split: str) -> beam.PCollection:
        staged = str(self._staging / f"{split}.jsonl")
        # Without the reshuffle, one worker would encode all clips of a staged file.
        examples = (
            pipeline
            | f"read {split}" >> beam.io.ReadFromText(staged)
            | f"spread {split}" >> beam.Reshuffle()
            | f"encode {split}" >> beam.ParDo(_Encode(self._staging / "problems"))
        )
        if self._extractor is None:
            return examples
        size = self._extractor.batch_size
        return (
            examples
            | f"batch {split}" >> beam.BatchElements(min_batch_size=size, max_batch_size=size)
            | f"features {split}" >> beam.ParDo(_AddFeatures(self._extractor))
        )


def stage(clips: Sequence[AnnotatedClip], staging: Path) -> list[str]:
    """Write `staging/<split>.jsonl`, whose lines the pipeline reads; returns the splits."""
    (staging / "problems").mkdir(parents=True)
    by_split: dict[str, list[str]] = {}
    for clip in clips:
        by_split.setdefault(clip.split, []).append(to_line(clip) + "\n")
    for split, lines in by_split.items():
        (staging / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return list(by_split)


def build(
    folder: Path,
    *,
    staging: Path,
    splits: Sequence[str],
    extractor: FeatureExtractor | None,
    runner: BeamRunner,
    shards: int,
) -> dict[str, str]:
    """Run the tfds builder into `folder`.

    Returns:
        clips that were left out because they cannot be used: id -> why.

    Raises:
        UserError: none of a split can be used.
    """
    config = tfds.download.DownloadConfig(
        beam_runner=runner.target,
        beam_options=runner.options,
        num_shards=shards,
        try_download_gcs=False,
    )
    import_tensorflow()  # before tfds does, so that it sees no accelerator
    tfds.disable_progress_bar()
    builder = OpenAsqaRecords(
        staging=staging, splits=splits, extractor=extractor, data_dir=str(folder)
    )
    prepared = False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # tfds announces temporary paths
            builder.download_and_prepare(
                download_dir=str(staging / "downloads"), download_config=config
            )
        prepared = True
    finally:
        problems = [json.loads(path.read_text()) for path in sorted(staging.glob("problems/*"))]
        reasons = {problem["clip_id"]: problem["reason"] for problem in problems}
        # Of a split whose clips are all bad, tfds only says that it is empty.
        if reasons and not prepared:
            more = f" (and {len(reasons) - 1} more clips)" if len(reasons) > 1 else ""
            raise UserError(
                f"{min(reasons.values())}{more}; repair or remove it, nothing was written"
            )
    return reasons


def index(folder: Path, *, runner: BeamRunner, features: Mapping[str, Any] | None) -> None:
    """Read back every shard, where the runner is, and write its index with checksums."""
    out = folder / record_files.INDEX
    out.mkdir()
    shards = sorted((folder / record_files.BUILDER / record_files.VERSION).glob("*.tfrecord-*"))
    shape = None if features is None else tuple(features["shape"])
    with beam.Pipeline(runner=runner.target, options=runner.options) as pipeline:
        _ = (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.Map(record_files.write_index, out=out, features_shape=shape)
        )
