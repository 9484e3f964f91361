"""Write a corpus as TFRecords: an Apache Beam pipeline in a tfds builder, one record per clip.

    python -m data_pipelines.write_records --corpus data/mini --out data/mini_records
    python -m data_pipelines.write_records --json mine.jsonl --audio-root clips --out my_records
    python -m data_pipelines.write_records --corpus DIR --out DIR --features WHISPER_WEIGHTS_DIR
    python -m data_pipelines.write_records --corpus DIR --out DIR --runner FlinkRunner -- --flink...

What follows a lone `--` are options of the Beam runner. Audio is stored as 16 kHz mono FLAC: such
files byte for byte, anything else resampled and rounded to 16 bits. The output appears only when it
is complete; valid output of the same input is kept.

A clip whose audio is missing or cannot be decoded is left out and listed in OUT/quarantine.jsonl
with the reason; where more than --max-quarantined of the clips are, nothing is written.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines import manifests, quarantine, record_builder, records
from data_pipelines.features import FeatureExtractor
from data_pipelines.quarantine import MAX_SHARE, Quarantined
from data_pipelines.record_summary import summarise, table
from data_pipelines.schema import SPLITS, Clip, RecordError, validate
from ltu_jax.core import errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.weights.fingerprint import KEY, SAME

_FEATURE_BATCH = 8
_SHARD_BYTES = 256 << 20
_FEWEST_SHARDS = 4


def write_records(
    clips: Sequence[Clip],
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
    outputs.claim(out, records.MAKER, inputs=[whisper_dir, *sorted(folders)])
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
    with atomic_dir(out, records.MAKER) as folder:
        staging = folder / ".staging"
        splits = record_builder.stage(clips, staging)
        with _progress(len(clips)):
            unusable = record_builder.build(
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
        quarantine.write(folder / records.QUARANTINE, left_out)
        record_builder.index(folder, runner=runner, flags=beam_flags, features=features)
        manifest = summarise(folder, splits=splits, source=source, features=features)
        manifest |= {"quarantined": len(left_out), "licences": licences}
        if tag_labels is not None:
            write_json(folder / records.TAG_LABELS, list(tag_labels))
        write_json(folder / records.MANIFEST, manifest)
        written = sum(split["clips"] for split in manifest["splits"].values())
        wanted = len(clips) - len(unusable)
        assert written == wanted, f"{written} of {wanted} clips came out of the pipeline"
    return manifest


class _progress:
    """A progress bar that the pipeline moves when it runs in this process."""

    def __init__(self, total: int):
        self._total = total

    def __enter__(self) -> None:
        record_builder.progress = tqdm(total=self._total, desc="records", unit="clip", disable=None)

    def __exit__(self, *_: object) -> None:
        record_builder.progress.close()
        record_builder.progress = None


def source_fingerprint(
    clips: Iterable[Clip],
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
        digest.update(f"{record_builder.to_line(clip)}|{file}\n".encode())
    return digest.hexdigest()


def _check_clips(clips: Sequence[Clip], *, tag_labels: Sequence[str] | None) -> None:
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
                f"{records.TAG_LABELS}; add it there"
            )


def _kept(out: Path, *, source: str) -> dict[str, Any] | None:
    """The manifest of `out` when it was made from the same source and is whole."""
    if not (out / records.MANIFEST).is_file():
        return None
    try:
        manifest = records.verify(out)
    except UserError as error:
        print(f"{error}\nwriting the records again", file=sys.stderr)
        return None
    return manifest if manifest["source_fingerprint"] == source else None


def command(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.write_records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--corpus", type=Path, help="corpus directory made by build_mini")
    given.add_argument("--json", type=Path, help="JSON or JSONL file of Open-ASQA records")
    parser.add_argument(
        "--audio-root", type=Path, help="folder of --json's audio (default: its own)"
    )
    parser.add_argument("--out", type=Path, required=True, help="records directory to write")
    parser.add_argument("--features", type=Path, help="Whisper weights whose features to store")
    parser.add_argument(
        "--encoder-dtype",
        choices=tuple(SAME),
        default="float32",
        help="precision of --features, as config.compute.encoder_dtype of the training (default: "
        "float32, that of the mini preset)",
    )
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner (default: here)")
    parser.add_argument("--shards", type=int, help="per split (default: 1 per 256 MiB, at least 4)")
    parser.add_argument("--force", action="store_true", help="write again even if --out is valid")
    parser.add_argument(
        "--max-quarantined",
        type=float,
        default=MAX_SHARE,
        help=f"share of clips that unreadable audio may cost (default: {MAX_SHARE})",
    )
    parser.add_argument("beam_flags", nargs="*", help="after a lone --: options of the runner")
    flags = parser.parse_args(arguments)
    began = time.monotonic()
    read = [flags.corpus, flags.json, flags.audio_root, flags.features]
    outputs.claim(flags.out, records.MAKER, inputs=read)
    given = _read(flags)
    manifest = write_records(
        given.clips,
        flags.out,
        tag_labels=given.tag_labels,
        whisper_dir=flags.features,
        encoder_dtype=flags.encoder_dtype,
        runner=flags.runner,
        beam_flags=flags.beam_flags,
        shards=flags.shards,
        force=flags.force,
        quarantined=given.quarantined,
        max_quarantined=flags.max_quarantined,
        licences=given.licences,
    )
    print(table(manifest))
    written = sum(split["clips"] for split in manifest["splits"].values())
    print(f"{flags.out}: {written} clips, {time.monotonic() - began:.0f} s")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Given:
    clips: list[Clip]
    quarantined: list[Quarantined]
    tag_labels: list[str] | None
    licences: dict[str, dict[str, int]] | None


def _read(flags: argparse.Namespace) -> _Given:
    if flags.json is not None:
        root = flags.json.parent if flags.audio_root is None else flags.audio_root
        left: list[Quarantined] = []
        clips = list(manifests.read_clips(flags.json, audio_root=root, quarantine=left.append))
        return _Given(clips=clips, quarantined=left, tag_labels=None, licences=None)
    clips = [clip for split in SPLITS for clip in manifests.read_corpus(flags.corpus, split=split)]
    return _Given(
        clips=clips,
        quarantined=[],
        tag_labels=list(manifests.tag_labels(flags.corpus)),
        licences=manifests.licences(flags.corpus),
    )


if __name__ == "__main__":
    errors.main(command)
