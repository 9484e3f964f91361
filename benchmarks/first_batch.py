"""One start of an input pipeline, timed from its imports to its first batch, and its steps after.

    python -m benchmarks.first_batch RECORDS TOKENIZER ROWS

`benchmarks.ten_million` runs it in fresh processes, so it imports what a training imports for its
data and nothing that only writes records. It prints one line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from ltu_jax.preprocessing.text import load_tokenizer

STEPS = 300


def start(records: Path, *, tokenizer: Path, rows: int) -> dict[str, float]:
    """Open the records as a training does, make a batch, then time what each step asks."""
    imported = time.time()
    config = DataConfig(
        records=str(records), split="train", layout="grouped", cutoff=108, pairs_per_clip=8,
        clips_per_row=2, row_tokens=622, rows_per_batch=rows, train_on="answer",
        features="on_the_fly", group_by_length=50, seed=0, audio_tokens=25, n_mels=80,
    )  # fmt: skip
    pipeline = InputPipeline(config, tokenizer=load_tokenizer(tokenizer))
    opened = time.time()
    batch = next(iter(pipeline.batches(steps=1)))
    assert batch["input_ids"].shape == (rows, 622)
    first, cpu_seconds = time.time(), time.process_time()
    walls, cpus = [], []
    for step in range(1, 1 + STEPS):
        wall, cpu = time.perf_counter(), time.thread_time()
        pipeline.text_length(step)
        pipeline.most_targets(step)
        for position in range(step * rows, (step + 1) * rows):
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
        "cpu_seconds_to_first_batch": cpu_seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "rows_per_epoch": pipeline.rows_per_epoch,
        **milliseconds,
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(start(Path(given[0]), tokenizer=Path(given[1]), rows=int(given[2]))))
