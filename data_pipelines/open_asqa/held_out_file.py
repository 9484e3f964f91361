"""What is tested on, in a file for all workers: names of recordings, and hashes of audio.

    {"recordings": {name: rule}, "audio": {hash: "BENCHMARK/CLIP"}}

Audio is decoded once; what was heard stays in a log, by path, size and date of the files.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import RecordProblems, text_lines
from data_pipelines.open_asqa import clip_audio, leakage
from data_pipelines.open_asqa.sources_file import GivenData
from ltu_jax.core.files import atomic_file
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS

_OWN = ("mini", "open_asqa", "jsonl")  # no benchmarks of others that could leak


def write(given: GivenData, work: Path, *, pool: Executor) -> tuple[Path, dict[str, Any]]:
    """Write the file, named after its content; return it, and where its entries are from.

    Args:
        given: sources, benchmarks and lists.
        work: folder of the file, and of the log of what was heard before.
        pool: processes that decode.

    Raises:
        UserError: test data that are there cannot be read.
    """
    problems = RecordProblems()
    recordings: dict[str, str] = {}
    for found in leakage.held_out_recordings(given, problems):
        recordings.setdefault(found.name, found.rule)
    audio_of, unheard = _heard(list(_test_files(given, problems)), work / "heard.jsonl", pool)
    text = json.dumps({"recordings": recordings, "audio": audio_of}, sort_keys=True)
    path = work / f"held_out-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for old in set(work.glob("held_out-*.json")) - {path}:
        old.unlink()
    by_rule = Counter(recordings.values())
    checked = {rule.partition(",")[0] for rule in by_rule} | set(given.benchmarks)
    return path, {
        "recordings": dict(sorted(by_rule.items())),
        "audio": dict(sorted(Counter(own.partition("/")[0] for own in audio_of.values()).items())),
        "unheard": unheard,
        "not_checked": [name for name in BENCHMARKS if name not in (*_OWN, *checked)],
        "unreadable_rows": problems.found,
    }


def _test_files(
    given: GivenData, problems: RecordProblems
) -> Iterator[tuple[str, Path, float | None, float | None]]:
    """Yield (BENCHMARK/CLIP, file, start, end) of all audio that is tested on."""
    for name, clip in leakage.benchmark_clips(given, problems):
        whole = not clip.start and clip.end is None
        start, end = (None, None) if whole else (clip.start, clip.end)
        yield f"{name}/{clip.clip_id}", clip.audio, start, end
    for path in given.lists:
        for _, line in text_lines(path, expected="names of recordings, one a line"):
            file = path.parent / line.strip()
            if file.is_file():
                yield f"{path.name}/{line.strip()}", file, None, None


def _heard(
    files: list[tuple[str, Path, float | None, float | None]], log: Path, pool: Executor
) -> tuple[dict[str, str], list[str]]:
    """Return hash -> name of the audio, and the names of files that cannot be heard."""
    known = {line["key"]: line["content"] for _, line in read_jsonl(log)}
    keys = [_key(*own[1:]) for own in files]
    new = {key: own[1:] for key, own in zip(keys, files, strict=True) if key and key not in known}
    with JsonlWriter(log) as writer:
        for key, content in zip(
            new, pool.map(clip_audio.content, new.values(), chunksize=16), strict=True
        ):
            known[key] = content
            writer.append({"key": key, "content": content})
    audio_of: dict[str, str] = {}
    unheard = []
    for key, (name, *_) in zip(keys, files, strict=True):
        content = known.get(key) if key else None
        if content is None:
            unheard.append(name)
        else:
            audio_of.setdefault(content, name)
    return audio_of, unheard


def _key(path: Path, start: float | None, end: float | None) -> str | None:
    try:
        there = os.stat(path)
    except OSError:
        return None
    return json.dumps([str(path), there.st_size, there.st_mtime_ns, start, end])


def names_of_rules(reports: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return rule -> clips left out, over all sources."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report["of_tests"])
    return dict(sorted(total.items()))
