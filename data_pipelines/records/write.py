"""Write clips as a records directory: staged, encoded by Apache Beam, indexed, summarised."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.records import beam_builder, record_files
from data_pipelines.records.beam_builder import BeamRunner
from data_pipelines.records.quarantine import Quarantine, entry
from data_pipelines.records.schema import AnnotatedClip, RecordError, validate
from data_pipelines.records.summary import summarise
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.weights.fingerprint import KEY

_SHARD_BYTES = 256 << 20
_FEWEST_SHARDS = 4


def write_records(
    clips: Sequence[AnnotatedClip],
    out: str | Path,
    *,
    tag_labels: Sequence[str] | None = None,
    extractor: FeatureExtractor | None = None,
    runner: BeamRunner | None = None,
    shards: int | None = None,
    force: bool = False,
    quarantine: Quarantine | None = None,
    licences: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Write `clips` (audio as paths) as a records directory, unless `out` holds the same already.

    Args:
        clips: of any splits, each id once.
        out: directory to make; on storage that all workers share when the runner is not local.
        tag_labels: label list of the tagging stage; every tag of a clip must be in it.
        extractor: computes the features that are stored too.
        runner: of Beam; None for this process.
        shards: per split; None for one per 256 MiB, at least 4.
        force: write even if `out` is valid.
        quarantine: clips that the reader of `clips` had to leave out, and how many may be.
        licences: clips by dataset and licence, for the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: a clip breaks the specification, has an unknown tag, or the audio of too many is
            unreadable.
    """
    runner, quarantine = runner or BeamRunner(), quarantine or Quarantine()
    if not clips and not quarantine.entries:
        raise UserError("there are no clips to write; check the corpus")
    out = Path(out)
    folders = {Path(clip.audio).parent for clip in clips}
    weights = None if extractor is None else extractor.weights_dir
    outputs.claim(out, record_files.MAKER, inputs=[weights, *sorted(folders)])
    features = None if extractor is None else dict(extractor.describe())
    _check_clips(clips, tag_labels=tag_labels)
    reasons = [entry.reason for entry in quarantine.entries]
    source = source_fingerprint(
        clips,
        tag_labels=tag_labels,
        features=features,
        also=(quarantine.max_share, licences, reasons),
    )
    clips = quarantine.without_missing(clips)
    quarantine.check(written=len(clips))
    if not force and (existing := _existing(out, source=source)) is not None:
        return existing
    if extractor is not None:
        # not part of the source's name: another device may round its last digits otherwise
        features[KEY] = extractor.clip_fingerprint().to_json()
    with atomic_dir(out, record_files.MAKER) as folder:
        splits, written = _write_shards(
            clips, folder, extractor=extractor, runner=runner, shards=shards, quarantine=quarantine
        )
        beam_builder.index(folder, runner=runner, features=features)
        manifest = summarise(folder, splits=splits, source=source, features=features)
        manifest |= {"quarantined": len(quarantine.entries), "licences": licences}
        if tag_labels is not None:
            write_json(folder / record_files.TAG_LABELS, list(tag_labels))
        write_json(folder / record_files.MANIFEST, manifest)
        counted = sum(split["clips"] for split in manifest["splits"].values())
        assert counted == written, f"{counted} of {written} clips came out of the pipeline"
    return manifest


def _write_shards(
    clips: Sequence[AnnotatedClip],
    folder: Path,
    *,
    extractor: FeatureExtractor | None,
    runner: BeamRunner,
    shards: int | None,
    quarantine: Quarantine,
) -> tuple[list[str], int]:
    """Run the pipeline and report what it left out; return splits and the clips written."""
    if shards is None:
        total = sum(Path(clip.audio).stat().st_size for clip in clips)
        shards = max(_FEWEST_SHARDS, -(-total // _SHARD_BYTES))
    staging = folder / ".staging"
    splits = beam_builder.stage(clips, staging)
    with _progress(len(clips)):
        unusable = beam_builder.build(
            folder,
            staging=staging,
            splits=splits,
            extractor=extractor,
            runner=runner,
            shards=shards,
        )
    shutil.rmtree(staging)
    by_id = {clip.clip_id: clip for clip in clips}
    quarantine.entries += [entry(by_id[name], reason=why) for name, why in sorted(unusable.items())]
    written = len(clips) - len(unusable)
    quarantine.check(written=written)
    quarantine.write(folder / record_files.QUARANTINE)
    return splits, written


class _progress:
    """A progress bar that the pipeline moves when it runs in this process."""

    def __init__(self, total: int):
        self._total = total

    def __enter__(self) -> None:
        beam_builder.progress = tqdm(total=self._total, desc="records", unit="clip", disable=None)

    def __exit__(self, *_: object) -> None:
        beam_builder.progress.close()
        beam_builder.progress = None


def source_fingerprint(
    clips: Iterable[AnnotatedClip],
    *,
    tag_labels: Sequence[str] | None,
    features: Mapping[str, Any] | None,
    also: Sequence[Any],
) -> str:
    """Return the hex SHA-256 over all fields of all clips, their audio files and the settings."""
    digest = hashlib.sha256(json.dumps([tag_labels, features, also], sort_keys=True).encode())
    for clip in clips:
        try:
            status = Path(clip.audio).stat()
            file = f"{status.st_size}|{status.st_mtime_ns}"
        except OSError:
            file = "missing"
        digest.update(f"{beam_builder.to_line(clip)}|{file}\n".encode())
    return digest.hexdigest()


def _check_clips(clips: Sequence[AnnotatedClip], *, tag_labels: Sequence[str] | None) -> None:
    seen: set[str] = set()
    for clip in clips:
        validate(clip)
        if clip.clip_id in seen:
            raise RecordError(
                f"clip {clip.clip_id!r}: field 'clip_id' is used twice; "
                "ids must differ, also between splits"
            )
        seen.add(clip.clip_id)
        unknown = [tag for tag in clip.tags if tag_labels is not None and tag not in tag_labels]
        if unknown:
            raise RecordError(
                f"clip {clip.clip_id!r}: field 'tags': {unknown[0]!r} is not in "
                f"{record_files.TAG_LABELS}; add it there"
            )


def _existing(out: Path, *, source: str) -> dict[str, Any] | None:
    """Return the manifest of `out` when it was made from the same source and is whole."""
    if not (out / record_files.MANIFEST).is_file():
        return None
    try:
        manifest = record_files.verify(out)
    except UserError as error:
        print(f"{error}\nwriting the records again", file=sys.stderr)
        return None
    return manifest if manifest["source_fingerprint"] == source else None
