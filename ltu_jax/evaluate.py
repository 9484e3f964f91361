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
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from data_pipelines.records.whisper_features import fingerprint
from ltu_jax import checkpoint, inference
from ltu_jax.core import distributed, errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file
from ltu_jax.evaluation.clients.clap import Clap
from ltu_jax.evaluation.clients.embedding import open_embedder
from ltu_jax.evaluation.clients.judge import open_judge
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.evaluation.datasets.dataset import Dataset, need_partners, read_dataset
from ltu_jax.evaluation.datasets.item import InputMode
from ltu_jax.evaluation.report import formatting, html_report, tables
from ltu_jax.evaluation.run import baselines, compare, run_dir, training_overlap
from ltu_jax.evaluation.run import runner as running
from ltu_jax.evaluation.run.clips import unreadable_clips
from ltu_jax.evaluation.run.results import score
from ltu_jax.evaluation.run.samples import GREEDY, SAMPLING
from ltu_jax.evaluation.scoring.interface import Tools
from ltu_jax.generation.transcription import RULES
from ltu_jax.weights import store
from ltu_jax.weights.open import encoder_dtype

_DECODINGS = (GREEDY, SAMPLING)
_BASES = ("whisper", "transcriber", "llama")
_EMBEDDER = Path("assets/weights/all-minilm-l6-v2")
_CACHE = Path("assets/evaluation_cache.sqlite")
_OURS = (formatting.MODEL, baselines.CHANCE, baselines.MAJORITY, baselines.WHISPER)
_Name = TypeVar("_Name", bound=str)


def _tool_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scoring")
    group.add_argument(
        "--embedder",
        default=str(_EMBEDDER),
        help="sentence embedding: a folder (python -m ltu_jax.fetch all-minilm-l6-v2), or "
        "URL#MODEL of an OpenAI-compatible endpoint, such as "
        "https://api.openai.com/v1#text-embedding-ada-002 (key in OPENAI_API_KEY); default: "
        f"{_EMBEDDER} if it is there, else what needs one is not computed",
    )
    group.add_argument(
        "--judge", help="URL#MODEL of an OpenAI-compatible chat endpoint that grades free answers"
    )
    group.add_argument(
        "--spice-jars",
        type=Path,
        help="folder of the SPICE and Stanford CoreNLP jars (default: that of pycocoevalcap)",
    )
    group.add_argument(
        "--cache",
        type=Path,
        default=_CACHE,
        help=f"SQLite file that keeps embeddings and replies (default: {_CACHE})",
    )


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, help="run, checkpoint or weights folder")
    for name in ("whisper", "llama"):
        text = f"{name} weights folder, if not where the checkpoint says"
        parser.add_argument(f"--{name}", type=Path, help=text)
    parser.add_argument(
        "--transcriber",
        type=Path,
        help="the Whisper that writes what is said where the data do not (default: as in training, "
        "else the one that hears)",
    )
    parser.add_argument(
        "--transcription",
        choices=tuple(RULES),
        help="how it writes; quiet: no words where nobody speaks, openai: OpenAI's thresholds "
        "(default: as in training, else quiet)",
    )
    parser.add_argument(
        "--benchmarks", help=f"comma-separated (default: mini), of: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument(
        "--data",
        help="folder of the benchmark as published (default: data/mini), or for several "
        "NAME=FOLDER,NAME=FOLDER",
    )
    parser.add_argument(
        "--jsonl",
        type=Path,
        help="your own questions, one {audio, question, answer, task, labels?} a line",
    )
    parser.add_argument("--split", help="of the benchmark (default: the published one)")
    parser.add_argument("--check", action="store_true", help="only say what the data lack")
    parser.add_argument(
        "--modes", default=",".join(InputMode), help="input modes, comma-separated (default: all)"
    )
    parser.add_argument(
        "--decodings",
        default=",".join(_DECODINGS),
        help="greedy, and sampling as published, with 3 draws an item, 5 for captions "
        "(default: both)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo/eval"),
        help="results folder; with several benchmarks, one folder each inside it (default: "
        "runs/demo/eval)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="insist on going on: an error where --out holds nothing or another evaluation",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        help="JSON file whose 'tasks' become the strict greedy figures; the rest of it stays",
    )
    parser.add_argument("--limit", type=int, help="at most this many items a row, drawn by hash")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="answers computed at once (default: 32)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the pairing of the shuffled mode (default: 0)"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="count items of clips that cannot be read as missing, instead of stopping",
    )
    parser.add_argument(
        "--skip-bad-records",
        action="store_true",
        help="leave out records of the data that cannot be asked, instead of stopping",
    )
    parser.add_argument(
        "--on-training-data",
        action="store_true",
        help="ask a benchmark that the model is trained on (open_asqa); the results say so",
    )
    parser.add_argument(
        "--clap", help="CLAP folder or hub id: its zero-shot labels as a baseline (needs torch)"
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system's answers to the one benchmark, JSON lines {item_id, output}; may be "
        "repeated",
    )
    _tool_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; the exit status.

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
    args = _run_parser().parse_args(argv)
    modes = _chosen(args.modes, tuple(InputMode), "--modes")
    decodings = _chosen(args.decodings, _DECODINGS, "--decodings")
    for name in ("limit", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give at least 1")
    predictions = _predictions(args.predictions)
    datasets = [
        read_dataset(
            data,
            name=name,
            split=args.split,
            limit=args.limit,
            seed=args.seed,
            skip_bad_records=args.skip_bad_records or args.check,
        )
        for name, data in _data(args).items()
    ]
    if args.check:
        return _check(datasets)
    if args.checkpoint is None:
        raise UserError("--checkpoint: give the run, checkpoint or weights folder to measure")
    for one in datasets:
        need_partners(one, modes)
    if predictions and len(datasets) > 1:
        raise UserError("--predictions are answers to one benchmark: evaluate it by itself")
    distributed.initialize()
    weights, header = _describe(args)
    writer = weights.get("transcriber") or weights.get("whisper")
    remarks = {
        one.name: training_overlap.refuse(
            one, training_overlap.overlap(one, header), asked_for=args.on_training_data
        )
        for one in datasets
    }
    _agree(args, datasets, weights)
    tools = _tools(args)
    clap = None if args.clap is None else Clap(args.clap)
    settings = running.EvaluationSettings(
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
    loaded: list[Any] = []

    def load() -> Any:
        if not loaded:
            given = {name: getattr(args, name) for name in ("transcriber", "transcription")}
            opened = inference.load(
                args.checkpoint,
                whisper=args.whisper,
                llama=args.llama,
                dtype=args.dtype,
                **{name: value for name, value in given.items() if value is not None},
            )
            loaded.append(opened.over(jax.local_devices()))
        return loaded[0]

    several = len(datasets) > 1
    outs = [args.out / one.name if several else args.out for one in datasets]
    if distributed.is_main():
        _claim(args, outs)
    begun = [(out / run_dir.CONFIG).exists() for out in outs]
    if several and args.resume and not any(begun):
        raise UserError(f"--resume: {args.out} holds no evaluation of these; leave --resume out")
    tasks: dict[str, Any] = {}
    for one, out, there in zip(datasets, outs, begun, strict=True):
        outcome = running.run(
            one,
            # of several benchmarks, a kill left some not begun
            dataclasses.replace(
                settings,
                resume=args.resume and (there or not several),
                remarks=(remarks[one.name],) if remarks[one.name] else (),
            ),
            load=load,
            out=out,
            tools=tools,
            clap=clap,
            predictions=predictions,
        )
        if distributed.is_main():
            tasks |= tables.summary_tasks(outcome.metrics)
            _show(args, one, outcome, out, tasks)
    if several and distributed.is_main():
        html_report.write(outs, args.out / "report.html")
        print(f"all benchmarks: {args.out / 'report.html'}")
    return 0


def _claim(args: argparse.Namespace, outs: Sequence[Path]) -> None:
    """Refuse, before a model is loaded, places that hold something else."""
    inputs = [args.checkpoint, args.whisper, args.llama, args.jsonl, *_data(args).values()]
    for out in outs:
        run_dir.claim(out, inputs=inputs)
    if args.summary is not None:
        tables.read_summary(args.summary)
    if len(outs) > 1:
        outputs.claim(args.out / "report.html", html_report.MAKER)


def _show(
    args: argparse.Namespace,
    dataset: Dataset,
    outcome: running.EvaluationOutcome,
    out: Path,
    tasks: Mapping[str, Any],
) -> None:
    """The table, what was computed and how fast, where everything lies; `tasks` so far."""
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
    for one in datasets:
        found = list(unreadable_clips(one.clips.values()))
        print(running.check(one, found))
        status |= bool(found or one.bad_records)
    return status


def _rescore(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate rescore",
        description="Score the answers of finished runs again, without a model.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="results folders")
    _tool_options(parser)
    args = parser.parse_args(argv)
    tools = _tools(args)
    for out in args.folders:
        run = run_dir.read_run(out)
        for line in run_dir.other_tools(run, tools):
            print(line)
        with run_dir.locked(out):
            throughput = running.throughput_of(out)
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
    _tool_options(parser)
    args = parser.parse_args(argv)
    if args.out is not None:
        outputs.claim(args.out, compare.MAKER, inputs=[args.a, args.b])
    left_out: list[str] = []
    runs = (run_dir.read_run(args.a), run_dir.read_run(args.b))
    found = compare.compare(*runs, _tools(args), left_out=left_out)
    print(tables.comparison_table(found, left_out))
    if args.out is not None:
        compare.write(found, args.out, left_out=left_out)
    return 0


def _report(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate report",
        description="One page of several runs, beside the published scores.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="results folders")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="page to write")
    args = parser.parse_args(argv)
    outputs.claim(args.out, html_report.MAKER)
    html_report.write(args.folders, args.out)
    print(args.out)
    return 0


def _tools(args: argparse.Namespace) -> Tools:
    embedder = None
    if args.embedder != str(_EMBEDDER) or _EMBEDDER.exists():
        embedder = open_embedder(args.embedder, cache=args.cache)
    judge = None if args.judge is None else open_judge(args.judge, cache=args.cache)
    return Tools(embedder=embedder, judge=judge, spice_jars=args.spice_jars)


def _data(args: argparse.Namespace) -> dict[str, Path]:
    """benchmark -> where its data lie."""
    if args.jsonl is not None:
        for option in ("benchmarks", "data"):
            if getattr(args, option) is not None:
                raise UserError(f"--jsonl is a benchmark of its own: leave --{option} out")
        return {"jsonl": args.jsonl}
    names = [name.strip() for name in (args.benchmarks or "mini").split(",")]
    data = "data/mini" if args.data is None else args.data
    if len(names) == 1 and "=" not in data:
        return {names[0]: Path(data)}
    given = dict(_pair(text, "--data") for text in data.split(","))
    for name in names:
        if name not in given:
            raise UserError(f"--data has no folder for {name}; add {name}=FOLDER")
    return {name: Path(given[name]) for name in names}


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"{option} {text!r}: give NAME=PATH")
    return name.strip(), value.strip()


def _chosen(text: str, known: tuple[_Name, ...], option: str) -> tuple[_Name, ...]:
    """Those of `known` that `text` lists, each once and in their own order."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{option}: unknown {', '.join(unknown)!r}; known: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _predictions(given: Sequence[str]) -> dict[str, Path]:
    """System -> file of its answers."""
    found: dict[str, Path] = {}
    for text in given:
        name, path = _pair(text, "--predictions")
        if name in found or name in _OURS:
            why = "given twice" if name in found else "the name of a line of ours"
            raise UserError(f"--predictions {text!r}: {name!r} is {why}; give another name")
        found[name] = Path(path)
    return found


def _describe(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tells these weights from others, and what they say of themselves.

    The first are hashes, and the path, which tells people.
    """
    config = args.checkpoint / "config.json"
    if config.is_file() and (listing := read_json(config)).get("kind") == "ltu-as":
        described = {"path": str(args.checkpoint), "sha256": sha256_file(config), "whisper": None}
        hearing = "float32"
    else:
        place, listing = checkpoint.read_metadata(args.checkpoint, verify=False)
        bases, hearing = listing["base"], encoder_dtype(listing)
        described = {
            "path": str(place),
            "sha256": sha256_file(place / checkpoint.METADATA),
            **{name: bases[name]["sha256"] for name in _BASES if name in bases},
        }
    for name in _BASES:
        if given := getattr(args, name):
            if not (given / "config.json").is_file():
                raise UserError(f"--{name} {given} has no config.json: give a weights folder")
            header = store.read_header(given)
            described[name] = store.identity(header["kind"], header["config"], header["sha256"])
    if whisper := described.get("whisper"):  # what encodes here, in the precision of `ltu_jax.load`
        described["features"] = fingerprint(whisper_sha256=whisper, dtype=hearing)
    return described, listing


def _agree(
    args: argparse.Namespace, datasets: Sequence[Dataset], weights: Mapping[str, Any]
) -> None:
    """All processes must ask the same of the same model, or their parts would not fit."""
    names = ("modes", "decodings", "limit", "batch_size", "dtype", "seed", "allow_missing",
             "transcription", "skip_bad_records", "on_training_data")  # fmt: skip

    def facts() -> dict[str, str]:
        options = {f"--{name.replace('_', '-')}": str(getattr(args, name)) for name in names}
        hashes = {name: str(value) for name, value in weights.items() if name != "path"}
        return options | hashes | {one.name: one.manifest for one in datasets}

    distributed.agree(facts, advice="start the same command with the same data on every host")


if __name__ == "__main__":
    errors.main(main)
