"""What ten million pairs cost the host: from a start to the first batch, and at each step.

    python -m benchmarks.ten_million [--pairs 10000000] [--scratch DIR] [--out DIR]

The records are synthetic: an index of a million clips over 850 shards, as large as that of
Open-ASQA, whose records all are copies of some dozen real ones (one second of audio, questions of
random words, pairs a clip as spread as in Open-ASQA). Each start is a fresh process that opens the
records as stage 3 does (grouped rows of 622 tokens, 64 a batch) and makes its first batch; the
first packs the rows and keeps them, the second finds them. The host's share of a step is all that
follows from the order: padded length, most targets, and which pairs of which records each of the 64
rows holds; no audio is read for it. No model runs.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import alternate, input_pipeline
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.input.token_counts import FOLDER, folder, token_lengths
from data_pipelines.records import record_files, record_index
from data_pipelines.records.array_cache import keep_arrays
from data_pipelines.records.record_index import RecordIndex
from data_pipelines.records.schema import AnnotatedClip
from data_pipelines.records.write import write_records
from ltu_jax.core import errors
from ltu_jax.core.files import read_json, write_json
from ltu_jax.preprocessing.text import load_tokenizer

SHARDS, REAL_CLIPS, ROWS, STEPS = 850, 48, 64, 300


def _real_clip(audio: Path, number: int) -> AnnotatedClip:
    """Make a clip of 1 or 2 pairs, or of 9 to 20, as of Open-ASQA's halves."""
    rng = np.random.default_rng(number)
    count = int(rng.integers(1, 3) if rng.random() < 0.46 else rng.integers(9, 21))
    clip = input_pipeline.make_clip(audio, number)
    pairs = [
        dataclasses.replace(clip.pairs[place % len(clip.pairs)], pair_id=f"p{place}")
        for place in range(count)
    ]
    return dataclasses.replace(clip, pairs=tuple(pairs))


def _gather(ends: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the parts of `chosen` records one after another, and their new ends."""
    sizes = np.diff(ends, prepend=0)[chosen]
    shift = np.repeat(ends[chosen] - np.cumsum(sizes), sizes)
    return shift + np.arange(len(shift)), np.cumsum(sizes)


def _copies(real: RecordIndex, chosen: np.ndarray, *, shard: str) -> tuple[RecordIndex, np.ndarray]:
    """Make the index of a shard of copies of `chosen` records; return it and the pairs it takes."""
    pairs, pair_ends = _gather(real.pair_ends, chosen)
    tags, tag_ends = _gather(real.tag_ends, chosen)
    ids = [f"{shard[-18:-9]}-{number}".encode() for number in range(len(chosen))]
    columns = {name: getattr(real, name)[chosen]
               for name in ("offset", "length", "crc32", "seconds", "dataset")}  # fmt: skip
    return dataclasses.replace(
        real,
        **columns,
        shard=np.zeros(len(chosen), np.int32),
        number=np.arange(len(chosen), dtype=np.int32),
        clip_ids=b"".join(ids),
        clip_ends=np.cumsum([len(name) for name in ids]),
        tags=real.tags[tags],
        tag_ends=tag_ends,
        tasks=real.tasks[pairs],
        pair_ends=pair_ends,
        closed=real.closed[pairs],
        characters=real.characters[pairs],
        shard_names=(shard,),
    ), pairs


def make_records(scratch: Path, *, pairs: int) -> Path:
    """Make the synthetic records, unless they are there."""
    out, few, audio = scratch / f"records-{pairs}", scratch / "real", scratch / "audio"
    if (out / record_files.MANIFEST).is_file():
        return out
    audio.mkdir(parents=True, exist_ok=True)
    write_records([_real_clip(audio, number) for number in range(REAL_CLIPS)], few, shards=1)
    tokenizer = load_tokenizer(input_pipeline.TOKENIZER)
    counted = token_lengths(few, split="train", tokenizer=tokenizer, show=False)
    manifest = read_json(few / record_files.MANIFEST)
    split = manifest["splits"]["train"]
    (header,) = split["shards"]
    real = record_index.join([record_files.read_index(few, header)])
    clips = round(pairs / float(real.pair_counts.mean()) / SHARDS)
    rng, shards, total = np.random.default_rng(0), [], 0
    for place in ("index", f"{record_files.BUILDER}/{record_files.VERSION}"):
        (out / place).mkdir(parents=True, exist_ok=True)
    for number in range(SHARDS):
        name = f"{record_files.BUILDER}-train.tfrecord-{number:05d}-of-{SHARDS:05d}"
        columns, taken = _copies(real, rng.integers(0, len(real), clips), shard=name)
        record_index.save(out / "index" / f"{name}.npz", columns, source=number)
        shard = record_files.shard_path(out, name)
        shard.unlink(missing_ok=True)
        os.link(record_files.shard_path(few, header["file"]), shard)
        identity = f"synthetic {number}"
        shards.append(header | {"file": name, "sha256": identity, "records": clips,
                                "index_crc32": number})  # fmt: skip
        arrays = {"counts": counted[taken], "shard": np.asarray(identity)}
        keep_arrays(folder(out, tokenizer=tokenizer) / f"{name}.npz", arrays)
        total += len(taken)
    split |= {"clips": clips * SHARDS, "pairs": total, "shards": shards}
    write_json(out / record_files.MANIFEST, manifest)
    return out


def start(records: Path) -> dict[str, float]:
    """Open the records as a training does, make a batch, then time what each step asks."""
    imported = time.time()
    config = DataConfig(
        records=str(records), split="train", layout="grouped", cutoff=108, pairs_per_clip=8,
        clips_per_row=2, row_tokens=622, rows_per_batch=ROWS, train_on="answer",
        features="on_the_fly", group_by_length=50, seed=0, audio_tokens=25, n_mels=80,
    )  # fmt: skip
    pipeline = InputPipeline(config, tokenizer=load_tokenizer(input_pipeline.TOKENIZER))
    opened = time.time()
    batch = next(iter(pipeline.batches(steps=1)))
    assert batch["input_ids"].shape == (ROWS, 622)
    first = time.time()
    walls, cpus = [], []
    for step in range(1, 1 + STEPS):
        wall, cpu = time.perf_counter(), time.thread_time()
        pipeline.text_length(step)
        pipeline.most_targets(step)
        for position in range(step * ROWS, (step + 1) * ROWS):
            pipeline.order.row(position)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
    milliseconds = {
        f"{name}_{percent}": 1000 * float(np.percentile(values, percent))
        for name, values in (("step_ms_wall", walls), ("step_ms_cpu", cpus))
        for percent in (50, 99)
    }
    return {
        "imported_at": imported,
        "open_seconds": opened - imported,
        "first_batch_seconds": first - opened,
        "first_at": first,
        "cpu_seconds": time.process_time(),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "rows_per_epoch": pipeline.rows_per_epoch,
        **milliseconds,
    }


def _timed_start(records: Path) -> dict[str, float]:
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.ten_million", "--start", str(records)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    found["import_seconds"] = found.pop("imported_at") - began
    found["start_to_first_batch_seconds"] = found.pop("first_at") - began
    found["load_average"] = os.getloadavg()[0]
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ten_million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=Path, default=Path("build/ten_million"))
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start is not None:
        print(json.dumps(start(given.start)))
        return
    input_pipeline.require_tokenizer()
    records = make_records(given.scratch, pairs=given.pairs)
    split = read_json(records / record_files.MANIFEST)["splits"]["train"]
    for kept in records.glob(f"{FOLDER}/*/rows-*.npz"):
        kept.unlink()  # by an earlier run
    starts = {name: _timed_start(records) for name in ("packs the rows", "finds them packed")}
    for name, found in starts.items():
        print(name, json.dumps(found, indent=1))
    about = {"what": "synthetic index; no model", "rows_per_batch": ROWS, "shards": SHARDS}
    about |= {"clips": split["clips"], "pairs": split["pairs"], "starts": starts}
    alternate.write("ten_million", about, out=given.out)


if __name__ == "__main__":
    errors.main(main)
