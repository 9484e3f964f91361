"""Peak memory of writing records, by number of clips and runner; the bytes must be the same.

    python -m benchmarks.write_records [--clips 2000 20000] [--scratch DIR] [--json FILE]

The clips are synthetic: 0.2 s of tones in 16 kHz FLAC, each with two pairs, in a manifest. The
command `data_pipelines.write_records` reads it; memory is the sum of the proportional set sizes of
its process and of all its children, sampled every 0.2 s.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from benchmarks import alternate
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.preprocessing.audio import SAMPLE_RATE

SECONDS, SHARDS, MOST_GROWTH = 0.2, 8, 1.2
RUNNERS = {
    "1 process": [],
    "2 processes": ["--workers", "2"],
    "Dask, 2 workers": ["--runner", "DaskRunner", "--workers", "2"],
}


def make_audio(folder: Path, number: int) -> None:
    """Write a synthetic clip."""
    time_axis = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.2 * np.sin(2 * np.pi * (100 + number % 3000) * time_axis)
    soundfile.write(folder / f"{number}.flac", tone, SAMPLE_RATE, subtype="PCM_16")


def rows(count: int) -> Iterator[dict[str, str]]:
    """Yield the rows of the manifest: two of each clip."""
    for number in range(count):
        for _ in range(2):
            yield {
                "instruction": f"What is sound {number}? " * 4,
                "input": "",
                "audio_id": f"{number}.flac",
                "dataset": "synthetic",
                "task": "open_describe",
                "output": f"A tone, number {number}. " * 8,
            }


def _memory(process: psutil.Process) -> int:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


def measure(audio: Path, out: Path, *, count: int, runner: str) -> dict[str, Any]:
    """Write records in a process of its own; return peak bytes, seconds and hash of all files."""
    shutil.rmtree(out, ignore_errors=True)
    manifest = out.with_name("rows.jsonl")
    write_jsonl(manifest, rows(count))
    began, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "data_pipelines.write_records", "--json", str(manifest)]
    command += ["--audio-root", str(audio), "--out", str(out), "--shards", str(SHARDS)]
    command += ["--no-tokens", *RUNNERS[runner]]
    with subprocess.Popen(command) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            peak = max(peak, _memory(process))
            time.sleep(0.2)
    if running.returncode:
        raise errors.UserError(f"{runner}: the writing ended with status {running.returncode}")
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(out)}\n".encode() + path.read_bytes())
    return {
        "clips": count,
        "left_out": (out / "quarantine.jsonl").read_text().count("\n"),
        "runner": runner,
        "peak_bytes": peak,
        "seconds": round(time.perf_counter() - began, 1),
        "sha256": digest.hexdigest(),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.write_records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--runners", nargs="+", choices=tuple(RUNNERS), default=list(RUNNERS))
    parser.add_argument("--scratch", type=Path, default=Path("build/write_records"))
    parser.add_argument("--json", type=Path, default=alternate.RESULTS / "write_records.json")
    given = parser.parse_args()
    audio = given.scratch / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    for number in range(max(given.clips)):
        if not (audio / f"{number}.flac").exists():
            make_audio(audio, number)
    runs = []
    for runner in given.runners:
        for count in given.clips:
            alternate.show(f"{runner}, {count} clips")
            runs.append(measure(audio, given.scratch / "out", count=count, runner=runner))
    fewest, most = min(given.clips), max(given.clips)
    peaks = {(row["runner"], row["clips"]): row["peak_bytes"] for row in runs}
    growth = {name: peaks[name, most] / peaks[name, fewest] for name in given.runners}
    hashes = {
        count: {row["sha256"] for row in runs if row["clips"] == count} for count in given.clips
    }
    same = all(len(of_count) == 1 for of_count in hashes.values())
    print(alternate.table(runs))
    found = {
        "what": f"synthetic clips of {SECONDS} s, two pairs each, {SHARDS} shards",
        "rows": runs,
        "growth": growth,
        "same_bytes": same,
        "ok": same
        and not any(row["left_out"] for row in runs)
        and max(growth.values()) <= MOST_GROWTH,
    }
    write_json(given.json, alternate.header() | found)


if __name__ == "__main__":
    errors.main(main)
