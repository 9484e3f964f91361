"""Measure a checkpoint on benchmarks, and score, compare and report what was measured.

    python -m ltu_jax.evaluate --checkpoint runs/demo/stage3 --benchmarks mini --data data/mini
    python -m ltu_jax.evaluate --checkpoint C --benchmarks esc50,gtzan --data esc50=DIR,gtzan=DIR
    python -m ltu_jax.evaluate --checkpoint C --jsonl mine.jsonl        # your own questions
    python -m ltu_jax.evaluate --check --benchmarks esc50 --data DIR    # what is missing there?
    python -m ltu_jax.evaluate rescore DIR ...      # new scores of old answers; no model
    python -m ltu_jax.evaluate compare A B          # is B better than A, on the items of both?
    python -m ltu_jax.evaluate report DIR ... --out report.html

Every item is asked in five input modes (joint, audio, text, shuffled, silence), greedily and by the
published sampling, and scored by the official rules (paper) and by rules that drop, replace and
guess nothing (strict). A run's folder holds config.json, items.jsonl, clips.jsonl, samples.jsonl
(one line an answer), metrics.json, results.txt, pictures and report.html. Run the same command
again after a kill and it goes on; nothing is computed twice. What another evaluation left in the
folder goes to old.1, old.2, ... inside it.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ltu_jax import inference
from ltu_jax.clients.clap import Clap
from ltu_jax.core import distributed, errors, outputs
from ltu_jax.core.compilation import keep_compiled
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import local_arguments
from ltu_jax.core.sharding import mesh_config
from ltu_jax.evaluation import command_options as options
from ltu_jax.evaluation.datasets.dataset import Dataset, need_partners, read_dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.report import html_report, tables
from ltu_jax.evaluation.run import (
    compare,
    run_dir,
    runner,
    training_overlap,
    weights_identity,
)
from ltu_jax.evaluation.run.clips import unreadable_clips
from ltu_jax.evaluation.run.results import score
from ltu_jax.weights.adapter_folder import shipped


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status.

    Raises:
        UserError: bad input, or a disk that is full or may not be written to.
    """
    commands = {"rescore": _rescore, "compare": _compare, "report": _report}
    try:
        with errors.command_line():
            argv = errors.arguments(sys.argv[1:] if argv is None else argv)
            if argv and argv[0] in commands:
                return commands[argv[0]](argv[1:])
            return _run(argv)
    except UserError as error:
        distributed.leave(error)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        distributed.leave(
            UserError(f"{name}{error.strerror or error}; make room or another place for the files")
        )


def _run(argv: Sequence[str]) -> int:
    args = local_arguments(options.run_parser(__doc__).parse_args(argv))
    modes = options.choose(args.modes, tuple(EvaluationMode), "--modes")
    decodings = options.choose(args.decodings, options.DECODINGS, "--decodings")
    for name in ("limit", "batch_size", "max_new_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give at least 1")
    predictions = options.prediction_files(args.predictions)
    datasets = [
        read_dataset(
            data,
            name=name,
            split=args.split,
            limit=args.limit,
            seed=args.seed,
            skip_bad_records=args.skip_bad_records or args.check,
        )
        for name, data in options.data_folders(args).items()
    ]
    if args.check:
        return _check(datasets)
    if args.max_new_tokens is not None:
        datasets = [dataset.answered_within(args.max_new_tokens) for dataset in datasets]
    args.checkpoint = shipped(args.checkpoint)
    for dataset in datasets:
        need_partners(dataset, modes)
    if predictions and len(datasets) > 1:
        raise UserError("--predictions are answers to one benchmark: evaluate it by itself")
    distributed.initialize()
    settings, remarks = _settings(args, datasets, modes=modes, decodings=decodings)
    tools = options.open_tools(args)
    clap = None if args.clap is None else Clap(args.clap)
    load = functools.cache(functools.partial(_load, args))
    several = len(datasets) > 1
    outs = [args.out / dataset.name if several else args.out for dataset in datasets]
    if distributed.is_main():
        _claim(args, outs)
    begun = [(out / run_dir.CONFIG).exists() for out in outs]
    if several and args.resume and not any(begun):
        raise UserError(f"--resume: {args.out} holds no evaluation of these; leave --resume out")
    tasks: dict[str, Any] = {}
    for dataset, out, there in zip(datasets, outs, begun, strict=True):
        remark = remarks[dataset.name]
        outcome = runner.run(
            dataset,
            # of several benchmarks, a kill left some not begun
            dataclasses.replace(
                settings,
                resume=args.resume and (there or not several),
                remarks=(remark,) if remark else (),
            ),
            load=load,
            out=out,
            tools=tools,
            clap=clap,
            predictions=predictions,
        )
        if distributed.is_main():
            tasks |= tables.summary_tasks(outcome.metrics)
            _print_outcome(args, dataset, outcome, out, tasks)
    if several and distributed.is_main():
        html_report.write(outs, args.out / "report.html")
        print(f"all benchmarks: {args.out / 'report.html'}")
    return 0


def _settings(
    args: argparse.Namespace,
    datasets: Sequence[Dataset],
    *,
    modes: tuple[EvaluationMode, ...],
    decodings: tuple[str, ...],
) -> tuple[runner.EvaluationSettings, dict[str, str | None]]:
    """Return the settings of all runs, and a remark on each benchmark that needs one.

    Raises:
        UserError: the model was trained on a benchmark, or processes do not agree.
    """
    weights, header = weights_identity.identify(
        args.checkpoint, bases={name: getattr(args, name) for name in weights_identity.BASES}
    )
    remarks = {
        dataset.name: training_overlap.refuse(
            dataset, training_overlap.overlap(dataset, header), asked_for=args.on_training_data
        )
        for dataset in datasets
    }
    _agree(args, datasets, weights)
    writer = weights.get("transcriber") or weights.get("whisper")
    settings = runner.EvaluationSettings(
        system=str(args.checkpoint),
        weights=weights,
        whisper=f"Whisper ({writer or 'unknown'})"[:24],
        dtype=args.dtype,
        modes=modes,
        decodings=decodings,
        batch_size=args.batch_size,
        seed=args.seed,
        limit=args.limit,
        allow_missing=args.allow_missing,
        resume=args.resume,
        writing={
            "rule": args.transcription or header.get("transcription") or "quiet",
            "whisper": str(writer),
        },
    )
    return settings, remarks


def _load(args: argparse.Namespace) -> Any:
    """Return the model that answers, on all devices of this process."""
    keep_compiled()
    given = {name: getattr(args, name) for name in ("transcriber", "transcription")}
    model = inference.load(
        args.checkpoint,
        whisper=args.whisper,
        llama=args.llama,
        dtype=args.dtype,
        mesh=None if args.mesh is None else mesh_config(args.mesh),
        **{name: value for name, value in given.items() if value is not None},
    )
    return model if args.mesh else model.over(jax.local_devices())


def _claim(args: argparse.Namespace, outs: Sequence[Path]) -> None:
    """Refuse, before a model is loaded, places that hold something else."""
    inputs = [
        args.checkpoint,
        args.whisper,
        args.llama,
        args.jsonl,
        *options.data_folders(args).values(),
    ]
    for out in outs:
        run_dir.claim(out, inputs=inputs)
    if args.summary is not None:
        tables.read_summary(args.summary)
    if len(outs) > 1:
        outputs.claim(args.out / "report.html", html_report.MAKER)


def _print_outcome(
    args: argparse.Namespace,
    dataset: Dataset,
    outcome: runner.EvaluationOutcome,
    out: Path,
    tasks: Mapping[str, Any],
) -> None:
    """Print the table, what was computed and how fast; write the summary of `tasks` so far."""
    collected = outcome.collected
    print(f"{len(dataset.items)} items, {outcome.wanted} answers", end="")
    if collected.computed:
        speed = outcome.metrics["throughput"]
        print(
            f"; {collected.computed} distinct ones computed in {collected.seconds:.0f} s, loading "
            f"and encoding included ({speed['answers_per_second']:.1f} answers/s, "
            f"{speed['audio_seconds_per_second']:.0f} s of audio/s)"
        )
    else:
        print(", all there already")
    print(f"\n{tables.table(outcome.metrics)}\n")
    if args.summary is not None:
        tables.merge_summary(args.summary, tasks)
    print(f"metrics {out / 'metrics.json'}, report {out / 'report.html'}")


def _check(datasets: Sequence[Dataset]) -> int:
    status = 0
    for dataset in datasets:
        unreadable = list(unreadable_clips(dataset.clips.values()))
        print(runner.check(dataset, unreadable))
        status |= bool(unreadable or dataset.bad_records)
    return status


def _rescore(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate rescore",
        description="Score the answers of finished runs again, without a model.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="results folders")
    options.add_tool_options(parser)
    args = local_arguments(parser.parse_args(argv))
    tools = options.open_tools(args)
    for out in args.folders:
        run = run_dir.read_run(out)
        for line in run_dir.other_tools(run, tools):
            print(line)
        with run_dir.locked(out):
            throughput = runner.throughput_of(out)
            metrics = score(run, tools, throughput=throughput)
        print(f"{out}\n{tables.table(metrics)}\n")
    return 0


def _compare(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate compare",
        description="Differences B - A on the items of both runs: bootstrap intervals and "
        "sign-flip tests over clusters, and McNemar's exact test of right and wrong where no two "
        "items share a cluster. What could not be compared is said beneath.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="results folder")
    parser.add_argument("b", type=Path, metavar="B", help="results folder of the same benchmark")
    parser.add_argument("--out", type=Path, help="JSON file to write the differences to as well")
    options.add_tool_options(parser)
    args = local_arguments(parser.parse_args(argv))
    if args.out is not None:
        outputs.claim(args.out, compare.MAKER, inputs=[args.a, args.b])
    left_out: list[str] = []
    runs = (run_dir.read_run(args.a), run_dir.read_run(args.b))
    comparisons = compare.compare(*runs, options.open_tools(args), left_out=left_out)
    print(tables.comparison_table(comparisons, left_out))
    if args.out is not None:
        compare.write(comparisons, args.out, left_out=left_out)
    return 0


def _report(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate report",
        description="One page of several runs, beside the published scores.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="results folders")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="page to write")
    args = local_arguments(parser.parse_args(argv))
    outputs.claim(args.out, html_report.MAKER)
    html_report.write(args.folders, args.out)
    print(args.out)
    return 0


def _agree(
    args: argparse.Namespace, datasets: Sequence[Dataset], weights: Mapping[str, Any]
) -> None:
    """Require all processes to ask the same of the same model, or their parts would not fit."""
    names = ("modes", "decodings", "limit", "batch_size", "dtype", "seed", "allow_missing",
             "max_new_tokens", "transcription", "skip_bad_records", "on_training_data")  # fmt: skip

    def facts() -> dict[str, str]:
        options = {f"--{name.replace('_', '-')}": str(getattr(args, name)) for name in names}
        hashes = {name: str(value) for name, value in weights.items() if name != "path"}
        return options | hashes | {dataset.name: dataset.manifest for dataset in datasets}

    distributed.agree(facts, advice="start the same command with the same data on every host")


if __name__ == "__main__":
    errors.main(main)
