"""Write clips as a records directory: staged, encoded by Apache Beam, indexed, summarised."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.records import beam_builder, quarantine, record_files
from data_pipelines.records.quarantine import MAX_SHARE, Quarantined
from data_pipelines.records.schema import AnnotatedClip, RecordError, validate
from data_pipelines.records.summary import summarise
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.weights.fingerprint import KEY

_FEATURE_BATCH = 8
_SHARD_BYTES = 256 << 20
_FEWEST_SHARDS = 4


def write_records(
    clips: Sequence[AnnotatedClip],
    out: str | Path,
    *,
    tag_labels: Sequence[str] | None = None,
    whisper_dir: str | Path | None = None,
    encoder_dtype: str = "float32",
    runner: str = "DirectRunner",
    beam_flags: Sequence[str] = (),
    shards: int | None = None,
    force: bool = False,
    quarantined: Sequence[Quarantined] = (),
    max_quarantined: float = MAX_SHARE,
    licences: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Write `clips` (audio as paths) as a records directory, unless `out` holds the same already.

    Args:
        clips: of any splits, each id once.
        out: directory to make; on storage that all workers share when the runner is not local.
        tag_labels: label list of the tagging stage; every tag of a clip must be in it.
        whisper_dir: weights directory of the encoder whose features are stored too.
        encoder_dtype: of its products; that of the training that will read them.
        runner: Beam's; "DirectRunner" runs in this process.
        beam_flags: options of the runner.
        shards: per split; None for one per 256 MiB, at least 4.
        force: write even if `out` is valid.
        quarantined: clips that the reader of `clips` had to leave out, for the report.
        max_quarantined: share of all clips that may be left out because of their audio.
        licences: clips by dataset and licence, for the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: a clip breaks the specification, has an unknown tag, or the audio of too many is
            unreadable.
    """
    if not clips and not quarantined:
        raise UserError("there are no clips to write; check the corpus")
    out = Path(out)
    folders = {Path(clip.audio).parent for clip in clips}
    outputs.claim(out, record_files.MAKER, inputs=[whisper_dir, *sorted(folders)])
    extractor, features = None, None
    if whisper_dir is not None:
        extractor = FeatureExtractor(whisper_dir, batch_size=_FEATURE_BATCH, dtype=encoder_dtype)
        features = dict(extractor.describe())
    _check_clips(clips, tag_labels=tag_labels)
    source = source_fingerprint(
        clips,
        tag_labels=tag_labels,
        features=features,
        also=(max_quarantined, licences, [entry.reason for entry in quarantined]),
    )
    clips, missing = quarantine.without_missing(clips)
    left_out = [*quarantined, *missing]
    quarantine.check(left_out, written=len(clips), most=max_quarantined)
    if not force and (kept := _kept(out, source=source)) is not None:
        return kept
    if extractor is not None:
        # not part of the source's name: another device may round its last digits otherwise
        features[KEY] = extractor.clip_fingerprint().to_json()
    if shards is None:
        total = sum(Path(clip.audio).stat().st_size for clip in clips)
        shards = max(_FEWEST_SHARDS, -(-total // _SHARD_BYTES))
    with atomic_dir(out, record_files.MAKER) as folder:
        staging = folder / ".staging"
        splits = beam_builder.stage(clips, staging)
        with _progress(len(clips)):
            unusable = beam_builder.build(
                folder,
                staging=staging,
                splits=splits,
                extractor=extractor,
                runner=runner,
                flags=beam_flags,
                shards=shards,
            )
        shutil.rmtree(staging)
        by_id = {clip.clip_id: clip for clip in clips}
        left_out += [
            quarantine.entry(by_id[name], reason=why) for name, why in sorted(unusable.items())
        ]
        quarantine.check(left_out, written=len(clips) - len(unusable), most=max_quarantined)
        quarantine.write(folder / record_files.QUARANTINE, left_out)
        beam_builder.index(folder, runner=runner, flags=beam_flags, features=features)
        manifest = summarise(folder, splits=splits, source=source, features=features)
        manifest |= {"quarantined": len(left_out), "licences": licences}
        if tag_labels is not None:
            write_json(folder / record_files.TAG_LABELS, list(tag_labels))
        write_json(folder / record_files.MANIFEST, manifest)
        written = sum(split["clips"] for split in manifest["splits"].values())
        wanted = len(clips) - len(unusable)
        assert written == wanted, f"{written} of {wanted} clips came out of the pipeline"
    return manifest


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
    """Hex SHA-256 over all fields of all clips, size and time of their audio, and the settings."""
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


def _kept(out: Path, *, source: str) -> dict[str, Any] | None:
    """The manifest of `out` when it was made from the same source and is whole."""
    if not (out / record_files.MANIFEST).is_file():
        return None
    try:
        manifest = record_files.verify(out)
    except UserError as error:
        print(f"{error}\nwriting the records again", file=sys.stderr)
        return None
    return manifest if manifest["source_fingerprint"] == source else None
