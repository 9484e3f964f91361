"""What a records directory holds, counted from its index: its manifest and a table of it."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.records import record_files
from ltu_jax.preprocessing import audio


def _indexes(folder: Path, split: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    pattern = f"{record_files.BUILDER}-{split}.tfrecord-*.jsonl"
    for path in sorted((folder / record_files.INDEX).glob(pattern)):
        content = path.read_bytes()
        header, *lines = map(json.loads, content.splitlines())
        yield header | {"index_crc32": zlib.crc32(content)}, lines


def summarise(
    folder: Path, *, splits: Sequence[str], source: str, features: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make the manifest: shards with their checksums, and counts by split, dataset and task."""
    window = audio.CLIP_FRAMES * audio.HOP / audio.SAMPLE_RATE
    summary: dict[str, Any] = {}
    for split in splits:
        counts: Counter[str] = Counter()
        datasets: Counter[str] = Counter()
        tasks: Counter[str] = Counter()
        shards, seconds, beyond = [], 0.0, 0.0
        for header, clips in _indexes(folder, split):
            shards.append(header)
            pairs = [pair for clip in clips for pair in clip["pairs"]]
            late = [clip["seconds"] - window for clip in clips if clip["seconds"] > window]
            counts["clips"] += len(clips)
            counts["pairs"] += len(pairs)
            counts["closed_ended_pairs"] += sum(closed_ended for _, closed_ended, _ in pairs)
            counts["synthetic_clips"] += sum(clip["synthetic"] for clip in clips)
            counts["clips_longer_than_window"] += len(late)
            datasets.update(clip["dataset"] for clip in clips)
            tasks.update(task for task, *_ in pairs)
            seconds += sum(clip["seconds"] for clip in clips)
            beyond += sum(late)
        summary[split] = {
            **counts,
            "seconds": round(seconds, 3),
            "seconds_beyond_window": round(beyond, 3),
            "bytes": sum(shard["bytes"] for shard in shards),
            "datasets": dict(sorted(datasets.items())),
            "tasks": dict(sorted(tasks.items())),
            "shards": shards,
        }
    return {
        "ltu_jax": record_files.FORMAT,
        "kind": "records",
        "source_fingerprint": source,
        "features": features,
        "splits": summary,
    }


def table(manifest: Mapping[str, Any]) -> str:
    """Write the counts of a manifest as a table for the terminal."""
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
    if manifest.get("quarantined"):
        lines.append(
            f"{manifest['quarantined']} clips left out, their audio cannot be read: "
            f"{record_files.QUARANTINE}"
        )
    return "\n".join(lines)
