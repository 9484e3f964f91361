"""Measure a checkpoint on a benchmark.

    python -m ltu_jax.evaluate --checkpoint runs/demo/stage3 --benchmarks mini --data data/mini

Every item is asked in five input modes (joint, audio, text, shuffled, silence), decoding greedily.
--out gets samples.jsonl (one line per answer, as they come), metrics.json, results.txt and
results.png. Run it again after a kill and it goes on; nothing is computed twice.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from ltu_jax import model
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.evaluation import answers, report
from ltu_jax.evaluation.benchmarks import BENCHMARKS, Mode, read_benchmark
from ltu_jax.evaluation.grading import QUOTE_TOLERANCE, figures, whisper_error_rate
from ltu_jax.training import checkpoint


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="run, checkpoint or weights folder"
    )
    for name in ("whisper", "llama"):
        text = f"{name} weights folder, if not where the checkpoint says"
        parser.add_argument(f"--{name}", type=Path, help=text)
    parser.add_argument("--benchmarks", default="mini", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--data", type=Path, default=Path("data/mini"), help="corpus folder")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument(
        "--modes", default=",".join(Mode), help="input modes, comma-separated (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo/eval"), help="results folder")
    parser.add_argument("--summary", type=Path, help="JSON file whose 'tasks' are set")
    parser.add_argument("--limit", type=int, help="at most this many items a row")
    parser.add_argument("--batch-size", type=int, default=32, help="answers computed at once")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the evaluation that the command line asks for."""
    args = _parser().parse_args(argv)
    modes = _modes(args.modes)
    for name in ("limit", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give at least 1")
    benchmark = read_benchmark(args.data, name=args.benchmarks, split=args.split, limit=args.limit)
    described = _describe(args)
    corpus = {
        name: sha256_file(args.data / name)
        for name in ("clips.jsonl", f"{args.split}_items.jsonl", "manifest.json")
        if (args.data / name).exists()
    }
    identity = {
        "benchmark": args.benchmarks,
        "split": args.split,
        "checkpoint": described,
        "corpus": corpus,
        "decoding": "greedy",
        "max_new_tokens": {name: row.max_new_tokens for name, row in benchmark.rows.items()},
    }
    if answers.start(args.out, identity):
        print(f"{args.out} held answers of another checkpoint or corpus: starting afresh")

    def load() -> answers.Answering:
        return model.load(args.checkpoint, whisper=args.whisper, llama=args.llama)

    collected = answers.collect(
        benchmark,
        modes=modes,
        load=load,
        out=args.out,
        features=args.out / "features" / _short({"whisper": described["whisper"], **corpus}),
        batch_size=args.batch_size,
    )
    total = len(benchmark.items) * len(modes)
    print(f"{len(benchmark.items)} items x {len(modes)} modes = {total} answers", end="")
    if collected.computed:
        print(
            f"; {collected.computed} distinct ones computed in {collected.seconds:.0f} s, loading "
            f"and encoding included ({collected.computed / collected.seconds:.1f} computed/s)"
        )
    else:
        print(", all there already")
    _write(args, benchmark, modes, identity, collected)


def _write(args, benchmark, modes, identity, collected) -> None:
    """Figures to the terminal, metrics.json, results.txt, results.png and the summary."""
    tasks = figures(benchmark, collected.outputs, modes=modes)
    whisper = whisper_error_rate(benchmark)
    text = report.table(tasks, modes=modes)
    if whisper is not None:
        text += (
            f"\nWhisper's own transcript against the script: WER {whisper.value:.2f} "
            f"[{whisper.low:.2f}, {whisper.high:.2f}]"
        )
    text += (
        "\n95 % bootstrap intervals over clips; WER: less is better. A joint question is right"
        f"\nwhen its sound is named and its words have at most WER {QUOTE_TOLERANCE} to Whisper's."
    )
    print(f"\n{text}\n")
    write_json(
        args.out / "metrics.json",
        {
            "config": {**identity, "limit": args.limit, "modes": list(modes)},
            "tasks": tasks,
            "whisper_transcript": None if whisper is None else vars(whisper),
            "answers_computed": collected.computed,
            "seconds": round(collected.seconds, 1),
        },
    )
    (args.out / "results.txt").write_text(text + "\n", encoding="utf-8")
    title = f"{args.benchmarks}, {args.split} split: {args.checkpoint}"
    report.plot(tasks, args.out / "results.png", modes=modes, title=title)
    if args.summary is not None:
        report.merge_summary(args.summary, report.summary_tasks(tasks))
    print(f"metrics {args.out / 'metrics.json'}, plot {args.out / 'results.png'}")


def _modes(text: str) -> tuple[Mode, ...]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in set(Mode)]
    if unknown:
        raise UserError(f"--modes: unknown {', '.join(unknown)!r}; known: {', '.join(Mode)}")
    return tuple(mode for mode in Mode if mode in names)


def _describe(args: argparse.Namespace) -> dict[str, Any]:
    """What tells these weights from others: hashes of the files that list all other hashes."""
    config = args.checkpoint / "config.json"
    if config.is_file() and read_json(config).get("kind") == "ltu-as":
        described = {"path": str(args.checkpoint), "sha256": sha256_file(config), "whisper": None}
    else:
        folder = checkpoint.resolve(args.checkpoint)
        listing = folder / checkpoint.METADATA
        described = {
            "path": str(folder),
            "sha256": sha256_file(listing),
            "whisper": read_json(listing)["base"]["whisper"]["sha256"],
        }
    for name in ("whisper", "llama"):
        if given := getattr(args, name):
            if not (given / "config.json").is_file():
                raise UserError(f"--{name} {given} has no config.json: give a weights folder")
            described[name] = sha256_file(given / "config.json")
    return described


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    errors.main(main)
