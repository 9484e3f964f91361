"""One setting of `benchmarks.input_pipeline`, in a process of its own that has its cores.

Started with the setting as JSON. For each number on stdin it draws so many batches and answers
with the seconds that `times` counts. What was made ahead while it waited is drawn first.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from ltu_jax.preprocessing.text import load_tokenizer

_AHEAD = 3  # batches that are made, and as many rows as are in the making


def open_pipeline(setting: dict[str, Any]) -> InputPipeline:
    """Open the pipeline of a stage over the records of a setting."""
    config = DataConfig(
        records=setting["records"],
        split="train",
        layout=setting["layout"],
        cutoff=108,
        pairs_per_clip=setting["pairs_per_clip"] if setting["layout"] == "grouped" else 1,
        clips_per_row=1,
        rows_per_batch=setting["rows"],
        train_on="all",
        features=setting["features"],
        seed=0,
        audio_tokens=25,
        n_mels=80,
        workers=setting["workers"],
    )
    return InputPipeline(config, tokenizer=load_tokenizer(setting["tokenizer"]))


def times() -> dict[str, Any]:
    """Return what the clock says, and seconds on a core and in wait for one, as the kernel counts.

    They are of this process ("own"), and of each of its workers ("workers").
    """
    tasks = [*Path("/proc/self/task").iterdir()]
    workers = sorted(int(pid) for task in tasks for pid in (task / "children").read_text().split())
    return {
        "seconds": time.perf_counter(),
        "own": _on_core_and_waiting("self"),
        "workers": [_on_core_and_waiting(str(pid)) for pid in workers],
    }


def _on_core_and_waiting(process: str) -> list[float]:
    threads = Path(f"/proc/{process}/task").iterdir()
    found = [map(int, (thread / "schedstat").read_text().split()[:2]) for thread in threads]
    return [sum(column) / 1e9 for column in zip(*found, strict=True)]


def difference(after: Any, before: Any) -> Any:
    """Subtract numbers that lie in equal lists and dicts."""
    if isinstance(after, dict):
        return {name: difference(after[name], before[name]) for name in after}
    if isinstance(after, list):
        return [difference(*pair) for pair in zip(after, before, strict=True)]
    return after - before


def answer(pipeline: InputPipeline, *, ahead: int) -> None:
    """Time batches as often as stdin asks."""
    batches: Iterator[Any] = pipeline.batches()
    next(batches)
    print("{}", flush=True)
    for line in sys.stdin:
        for _ in range(ahead):
            next(batches)
        before = times()
        for _ in range(int(line)):
            next(batches)
        spent = difference(times(), before)
        print(json.dumps(spent), flush=True)
    batches.close()


def main(setting: dict[str, Any]) -> None:
    """Open the pipeline of a setting and answer."""
    in_the_making = setting["workers"] * 8 // setting["rows"]
    answer(open_pipeline(setting), ahead=_AHEAD + in_the_making)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
