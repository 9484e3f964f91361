"""Write a corpus as TFRecords: an Apache Beam pipeline in a tfds builder, one record per clip.

    python -m data_pipelines.write_records --corpus data/mini --out data/mini_records
    python -m data_pipelines.write_records --json mine.jsonl --audio-root clips --out my_records
    python -m data_pipelines.write_records --corpus DIR --out DIR --features WHISPER_WEIGHTS_DIR
    python -m data_pipelines.write_records --corpus DIR --out DIR --runner FlinkRunner -- --flink...

What follows a lone `--` are options of the Beam runner. Audio is stored as 16 kHz mono FLAC: such
files byte for byte, anything else resampled and rounded to 16 bits. The output appears only when it
is complete; valid output of the same input is kept.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines import record_builder, records
from data_pipelines.features import FRAMES, FeatureExtractor
from data_pipelines.schema import SPLITS, Clip, RecordError, validate
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.preprocessing import audio
from ltu_jax.weights.fingerprint import KEY

_FEATURE_BATCH = 8
_SHARD_BYTES = 256 << 20
_FEWEST_SHARDS = 4


def write_records(
    clips: Sequence[Clip],
    out: str | Path,
    *,
    tag_labels: Sequence[str] | None = None,
    whisper_dir: str | Path | None = None,
    runner: str = "DirectRunner",
    beam_flags: Sequence[str] = (),
    shards: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write `clips` (audio as paths) as a records directory, unless `out` holds the same already.

    Args:
        clips: of any splits, each id once.
        out: directory to make; on storage that all workers share when the runner is not local.
        tag_labels: label list of the tagging stage; every tag of a clip must be in it.
        whisper_dir: weights directory of the encoder whose features are stored too.
        runner: Beam's; "DirectRunner" runs in this process.
        beam_flags: options of the runner.
        shards: per split; None for one per 256 MiB, at least 4.
        force: write even if `out` is valid.

    Returns:
        The manifest.

    Raises:
        UserError: a clip breaks the specification, has an unknown tag, or its audio is unreadable.
    """
    if not clips:
        raise UserError("there are no clips to write; check the corpus")
    out = Path(out)
    extractor, features = None, None
    if whisper_dir is not None:
        extractor = FeatureExtractor(whisper_dir, batch_size=_FEATURE_BATCH)
        features = dict(extractor.describe())
    _check_clips(clips, tag_labels=tag_labels)
    source = source_fingerprint(clips, tag_labels=tag_labels, features=features)
    if not force and (kept := _kept(out, source=source)) is not None:
        return kept
    if extractor is not None:
        # not part of the source's name: another device may round its last digits otherwise
        features[KEY] = extractor.clip_fingerprint().to_json()
    if shards is None:
        total = sum(Path(clip.audio).stat().st_size for clip in clips)
        shards = max(_FEWEST_SHARDS, -(-total // _SHARD_BYTES))
    with atomic_dir(out) as folder:
        staging = folder / ".staging"
        splits = record_builder.stage(clips, staging)
        with _progress(len(clips)):
            record_builder.build(
                folder,
                staging=staging,
                splits=splits,
                extractor=extractor,
                runner=runner,
                flags=beam_flags,
                shards=shards,
            )
        shutil.rmtree(staging)
        record_builder.index(folder, runner=runner, flags=beam_flags, features=features)
        manifest = _summarise(folder, splits=splits, source=source, features=features)
        if tag_labels is not None:
            write_json(folder / records.TAG_LABELS, list(tag_labels))
        write_json(folder / records.MANIFEST, manifest)
        written = sum(split["clips"] for split in manifest["splits"].values())
        assert written == len(clips), f"{written} of {len(clips)} clips came out of the pipeline"
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
) -> str:
    """Hex SHA-256 over all fields of all clips, size and time of their audio, and the settings."""
    digest = hashlib.sha256(json.dumps([tag_labels, features], sort_keys=True).encode())
    for clip in clips:
        try:
            status = Path(clip.audio).stat()
        except OSError as error:
            raise RecordError(
                f"clip {clip.clip_id!r}: field 'audio': cannot read {clip.audio}: "
                f"{error.strerror}; restore the file or remove the clip"
            ) from error
        line = record_builder.to_line(clip)
        digest.update(f"{line}|{status.st_size}|{status.st_mtime_ns}\n".encode())
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


def _indexes(folder: Path, split: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    pattern = f"{records.BUILDER}-{split}.tfrecord-*.jsonl"
    for path in sorted((folder / records.INDEX).glob(pattern)):
        content = path.read_bytes()
        header, *lines = map(json.loads, content.splitlines())
        yield header | {"index_crc32": zlib.crc32(content)}, lines


def _summarise(
    folder: Path, *, splits: Sequence[str], source: str, features: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The manifest: shards with their checksums, and counts by split, dataset and task."""
    window = FRAMES * audio.HOP / audio.SAMPLE_RATE
    summary: dict[str, Any] = {}
    for split in splits:
        shards, clips = [], []
        for header, lines in _indexes(folder, split):
            shards.append(header)
            clips += lines
        pairs = [pair for clip in clips for pair in clip["pairs"]]
        late = [clip["seconds"] - window for clip in clips if clip["seconds"] > window]
        summary[split] = {
            "clips": len(clips),
            "pairs": len(pairs),
            "closed_ended_pairs": sum(closed_ended for _, closed_ended, _ in pairs),
            "synthetic_clips": sum(clip["synthetic"] for clip in clips),
            "seconds": round(sum(clip["seconds"] for clip in clips), 3),
            "clips_longer_than_window": len(late),
            "seconds_beyond_window": round(sum(late), 3),
            "bytes": sum(shard["bytes"] for shard in shards),
            "datasets": dict(sorted(Counter(clip["dataset"] for clip in clips).items())),
            "tasks": dict(sorted(Counter(task for task, *_ in pairs).items())),
            "shards": shards,
        }
    return {
        "ltu_jax": records.FORMAT,
        "kind": "records",
        "source_fingerprint": source,
        "features": features,
        "splits": summary,
    }


def table(manifest: Mapping[str, Any]) -> str:
    """The counts of a manifest as a table for the terminal."""
    rows = [
        ("split", "clips", "pairs", "closed", "synthetic", "seconds", "shards", "MB", "beyond 10 s")
    ]
    for split, counts in manifest["splits"].items():
        late = counts["clips_longer_than_window"]
        beyond = f"{late} clips, {counts['seconds_beyond_window']:.0f} s unheard" if late else "-"
        rows.append(
            (
                split,
                *(counts[k] for k in ("clips", "pairs", "closed_ended_pairs", "synthetic_clips")),
                f"{counts['seconds']:.0f}",
                len(counts["shards"]),
                f"{counts['bytes'] / 1e6:.1f}",
                beyond,
            )
        )
    lines = ["".join(f"{cell!s:>11}" for cell in row[:-1]) + f"  {row[-1]}" for row in rows]
    if manifest["features"] is not None:
        stored = manifest["features"]
        size = " x ".join(map(str, stored["shape"]))
        lines.append(f"features {size} of {stored['whisper']}, {stored['fingerprint'][:12]}")
    return "\n".join(lines)


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
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner (default: here)")
    parser.add_argument("--shards", type=int, help="per split (default: 1 per 256 MiB, at least 4)")
    parser.add_argument("--force", action="store_true", help="write again even if --out is valid")
    parser.add_argument("beam_flags", nargs="*", help="after a lone --: options of the runner")
    flags = parser.parse_args(arguments)
    began = time.monotonic()
    clips, tag_labels = _read(flags)
    manifest = write_records(
        clips,
        flags.out,
        tag_labels=tag_labels,
        whisper_dir=flags.features,
        runner=flags.runner,
        beam_flags=flags.beam_flags,
        shards=flags.shards,
        force=flags.force,
    )
    print(table(manifest))
    print(f"{flags.out}: {len(clips)} clips, {time.monotonic() - began:.0f} s")
    return 0


def _read(flags: argparse.Namespace) -> tuple[list[Clip], list[str] | None]:
    from data_pipelines import manifests

    if flags.json is not None:
        root = flags.json.parent if flags.audio_root is None else flags.audio_root
        return list(manifests.read_clips(flags.json, audio_root=root)), None
    clips = [clip for split in SPLITS for clip in manifests.read_corpus(flags.corpus, split=split)]
    return clips, list(manifests.tag_labels(flags.corpus))


if __name__ == "__main__":
    errors.main(command)
