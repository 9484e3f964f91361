"""Peak memory of writing records, by number of clips and runner; the bytes must be the same.

    python -m benchmarks.write_records [--clips 2000 20000] [--scratch DIR] [--json FILE]

The clips are synthetic: 0.2 s of tones in 16 kHz FLAC, each with two pairs. Every writing runs in a
process of its own; memory is the sum of the proportional set sizes of it and of all its children,
sampled every 0.2 s.
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
from data_pipelines.records.beam_runner import BeamRunner
from data_pipelines.records.schema import AnnotatedClip, QAPair
from data_pipelines.records.write import write_records
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.preprocessing.audio import SAMPLE_RATE

SECONDS, SHARDS, MOST_GROWTH = 0.2, 8, 1.2
RUNNERS = {
    "1 process": BeamRunner(),
    "2 processes": BeamRunner(workers=2),
    "Dask, 2 workers": BeamRunner(name="DaskRunner", workers=2),
}


def make_audio(folder: Path, number: int) -> None:
    """Write a synthetic clip."""
    time_axis = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.2 * np.sin(2 * np.pi * (100 + number % 3000) * time_axis)
    soundfile.write(folder / f"{number}.flac", tone, SAMPLE_RATE, subtype="PCM_16")


def clips(folder: Path, *, count: int) -> Iterator[AnnotatedClip]:
    """Yield the clips one by one."""
    for number in range(count):
        pairs = tuple(
            QAPair(
                pair_id=f"p{place}",
                instruction=f"What is sound {number}? " * 4,
                output=f"A tone, number {number}. " * 8,
                task="open_describe",
                closed_ended=False,
            )
            for place in range(2)
        )
        yield AnnotatedClip(
            clip_id=f"clip{number}",
            audio=folder / f"{number}.flac",
            sample_rate=SAMPLE_RATE,
            seconds=SECONDS,
            spoken_text="",
            dataset="synthetic",
            split="train",
            synthetic=True,
            tags=(),
            pairs=pairs,
        )


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
    began, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "benchmarks.write_records", "--one", runner]
    command += ["--clips", str(count), "--audio", str(audio), "--out", str(out)]
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
    parser.add_argument("--one", choices=tuple(RUNNERS), help=argparse.SUPPRESS)
    parser.add_argument("--audio", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        one_by_one = clips(given.audio, count=given.clips[0])
        write_records(one_by_one, given.out, runner=RUNNERS[given.one], shards=SHARDS)
        return
    audio = given.scratch / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    for number in range(max(given.clips)):
        if not (audio / f"{number}.flac").exists():
            make_audio(audio, number)
    rows = []
    for runner in given.runners:
        for count in given.clips:
            alternate.show(f"{runner}, {count} clips")
            rows.append(measure(audio, given.scratch / "out", count=count, runner=runner))
    fewest, most = min(given.clips), max(given.clips)
    peaks = {(row["runner"], row["clips"]): row["peak_bytes"] for row in rows}
    growth = {name: peaks[name, most] / peaks[name, fewest] for name in given.runners}
    hashes = {
        count: {row["sha256"] for row in rows if row["clips"] == count} for count in given.clips
    }
    same = all(len(of_count) == 1 for of_count in hashes.values())
    print(alternate.table(rows))
    found = {
        "what": f"synthetic clips of {SECONDS} s, two pairs each, {SHARDS} shards",
        "rows": rows,
        "growth": growth,
        "same_bytes": same,
        "ok": same and max(growth.values()) <= MOST_GROWTH,
    }
    write_json(given.json, alternate.header() | found)


if __name__ == "__main__":
    errors.main(main)
