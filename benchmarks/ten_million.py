"""What ten million pairs cost the host: from a start to the first batch, and at each step.

    python -m benchmarks.ten_million [--pairs 10000000] [--scratch DIR] [--out DIR]

The records are synthetic: an index of a million clips over 850 shards, as large as that of
Open-ASQA, whose records all are copies of some dozen real ones (one second of audio, questions of
random words, pairs a clip as spread as in Open-ASQA). Each start is a fresh process that opens the
records as stage 3 does (grouped rows of 622 tokens, 64 a batch) and makes its first batch
(`benchmarks.first_batch`). The first compiles the packing loop, packs the rows and keeps both; the
second finds them. The host's share of a step is all that
follows from the order: padded length, most targets, and which pairs of which records each of the 64
rows holds; no audio is read for it. No model runs.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import alternate, input_pipeline
from data_pipelines.input.token_counts import FOLDER, folder, token_lengths
from data_pipelines.records import record_files, record_index
from data_pipelines.records.array_cache import keep_arrays
from data_pipelines.records.record_index import RecordIndex
from data_pipelines.records.schema import AnnotatedClip
from data_pipelines.records.write import write_records
from ltu_jax.core import errors
from ltu_jax.core.files import read_json, write_json
from ltu_jax.preprocessing.text import load_tokenizer

SHARDS, REAL_CLIPS, ROWS = 850, 48, 64


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


def _timed_start(records: Path, *, compiled: Path) -> dict[str, float]:
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.first_batch", str(records)]
    command += [str(input_pipeline.TOKENIZER), str(ROWS)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(compiled)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
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
    given = parser.parse_args()
    input_pipeline.require_tokenizer()
    records = make_records(given.scratch, pairs=given.pairs)
    split = read_json(records / record_files.MANIFEST)["splits"]["train"]
    for kept in records.glob(f"{FOLDER}/*/rows-*.npz"):
        kept.unlink()  # by an earlier run
    compiled = given.scratch.absolute() / "compiled"
    shutil.rmtree(compiled, ignore_errors=True)
    names = ("packs the rows", "finds them packed")
    starts = {name: _timed_start(records, compiled=compiled) for name in names}
    for name, found in starts.items():
        print(name, json.dumps(found, indent=1))
    about = {"what": "synthetic index; no model", "rows_per_batch": ROWS, "shards": SHARDS}
    about |= {"clips": split["clips"], "pairs": split["pairs"], "starts": starts}
    alternate.write("ten_million", about, out=given.out)


if __name__ == "__main__":
    errors.main(main)
