"""Options of `python -m ltu_jax.evaluate`: the parsers, and what the values mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ltu_jax.clients.embedding import open_embedder
from ltu_jax.clients.judge import open_judge
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import argument
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.report import formatting
from ltu_jax.evaluation.run import baselines
from ltu_jax.evaluation.run.samples import GREEDY, SAMPLING
from ltu_jax.evaluation.scoring.interface import Tools
from ltu_jax.generation.transcription import RULES

DECODINGS = (GREEDY, SAMPLING)
_EMBEDDER = Path("assets/weights/all-minilm-l6-v2")
_CACHE = Path("assets/evaluation_cache.sqlite")
_OURS = (formatting.MODEL, baselines.CHANCE, baselines.MAJORITY, baselines.WHISPER)
_Name = TypeVar("_Name", bound=str)


def add_tool_options(parser: argparse.ArgumentParser) -> None:
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


def run_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of an evaluation, for the command without a subcommand."""
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.evaluate",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_options(parser)
    _add_data_options(parser)
    parser.add_argument(
        "--modes",
        default=",".join(EvaluationMode),
        help="input modes, comma-separated (default: all)",
    )
    parser.add_argument(
        "--decodings",
        default=",".join(DECODINGS),
        help="greedy, and sampling as published, with 3 draws an item, 5 for captions "
        "(default: both)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/eval"),
        help="results folder; with several benchmarks, one folder each inside it (default: "
        "runs/eval)",
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
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="an answer ends there at the latest (default: the benchmark's own; 400 for --jsonl)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the language model; int8: its kernels, the rest bfloat16 (default: float32)",
    )
    parser.add_argument(
        "--mesh",
        metavar="AXIS=N,...",
        help="lay the language model over the devices of this process, such as tensor=4, where one "
        "is too small; by default each has a copy",
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
    add_tool_options(parser)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=argument, help="run, checkpoint or weights folder")
    for name in ("whisper", "llama"):
        text = f"{name} weights folder, if not where the checkpoint says"
        parser.add_argument(f"--{name}", type=argument, help=text)
    parser.add_argument(
        "--transcriber",
        type=argument,
        help="the Whisper that writes what is said where the data do not (default: as in training, "
        "else the one that hears)",
    )
    parser.add_argument(
        "--transcription",
        choices=tuple(RULES),
        help="how it writes; quiet: no words where nobody speaks, openai: OpenAI's thresholds "
        "(default: as in training, else quiet)",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
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


def open_tools(args: argparse.Namespace) -> Tools:
    embedder = None
    if args.embedder != str(_EMBEDDER) or _EMBEDDER.exists():
        embedder = open_embedder(args.embedder, cache=args.cache)
    judge = None if args.judge is None else open_judge(args.judge, cache=args.cache)
    return Tools(embedder=embedder, judge=judge, spice_jars=args.spice_jars)


def data_folders(args: argparse.Namespace) -> dict[str, Path]:
    """Return where the data of each benchmark lie."""
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


def choose(text: str, known: tuple[_Name, ...], option: str) -> tuple[_Name, ...]:
    """Return those of `known` that `text` lists, each once and in their own order."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{option}: unknown {', '.join(unknown)!r}; known: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def prediction_files(given: Sequence[str]) -> dict[str, Path]:
    """Return the file of answers of each other system."""
    files: dict[str, Path] = {}
    for text in given:
        name, path = _pair(text, "--predictions")
        if name in files or name in _OURS:
            why = "given twice" if name in files else "the name of a line of ours"
            raise UserError(f"--predictions {text!r}: {name!r} is {why}; give another name")
        files[name] = Path(path)
    return files
