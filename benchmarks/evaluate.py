"""Throughput of the evaluation job by batch size: reading, encoding, answering; not compiling.

    python -m benchmarks.evaluate --checkpoint runs/demo/stage3 --data data/mini [--batches 1 8 32]

A few items of every row of the mini benchmark, greedy, in the five input modes, which share a
clip's features, as `python -m ltu_jax.evaluate` asks them. Every batch size must give the same
answers, or nothing is written; contenders take turns, medians are compared.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ltu_jax
from benchmarks import alternate
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import Dataset, read_dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.run.answers import collect, sample_keys
from ltu_jax.evaluation.run.clips import transcribe_clips
from ltu_jax.evaluation.run.samples import GREEDY
from ltu_jax.inference import Model


def ask(dataset: Dataset, model: Model, *, batch_size: int, out: Path) -> Any:
    """Run a whole evaluation in an empty folder: read clips, answer items."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    needed = {item.clip_id for item in dataset.items}
    needed |= {dataset.partner[item.item_id] for item in dataset.items}
    clips = transcribe_clips(
        [clip for name, clip in dataset.clips.items() if name in needed],
        model=model,
        path=out / "clips.jsonl",
        known={},
        whisper="Whisper",
        batch_size=batch_size,
        allow_missing=False,
    )
    return collect(
        dataset,
        wanted=list(sample_keys(dataset, modes=list(EvaluationMode), decodings=[GREEDY])),
        clips=clips,
        model=model,
        out=out,
        samples={},
        batch_size=batch_size,
    )


def main() -> None:
    """Check that batches agree, time them, print and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/demo/stage3"))
    parser.add_argument("--data", type=Path, default=Path("data/mini"), help="the mini corpus")
    parser.add_argument("--limit", type=int, default=4, help="items a row")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    args = parser.parse_args()
    dataset = read_dataset(args.data, name="mini", split="test", limit=args.limit)
    model = ltu_jax.load(args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[int, Any] = {}

        def contender(batch_size: int) -> alternate.Contender:
            def run() -> None:
                found[batch_size] = ask(
                    dataset, model, batch_size=batch_size, out=Path(folder) / "run"
                )

            return alternate.Contender(name=f"batch {batch_size}", run=run)

        timings = alternate.alternate(
            [contender(size) for size in args.batches], rounds=args.rounds
        )
    answers = {
        size: {key: sample["output"] for key, sample in collected.samples.items()}
        for size, collected in found.items()
    }
    first = args.batches[0]
    for size, given in answers.items():
        apart = sum(given[key] != answers[first][key] for key in given)
        if apart:
            raise UserError(f"{apart} answers of batch {size} are not those of batch {first}")
    rows = []
    for size in args.batches:
        collected, timing = found[size], timings[f"batch {size}"]
        rows.append(
            {
                "contender": f"batch {size}",
                "seconds": timing.median,
                "answers_per_second": collected.computed / timing.median,
                "audio_seconds_per_second": collected.audio_seconds / timing.median,
                f"x batch {first}": timings[f"batch {first}"].median / timing.median,
            }
        )
    print(alternate.table(rows))
    alternate.write(
        "evaluate",
        {
            "items": len(dataset.items),
            "rows": rows,
            "timings": {name: timing.to_json() for name, timing in timings.items()},
        },
        out=args.out,
    )


if __name__ == "__main__":
    errors.main(main)
