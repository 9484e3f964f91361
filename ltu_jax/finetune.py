"""Teach the model your own sounds: a file of questions and a folder of clips, one command.

    python -m ltu_jax.finetune --data my.jsonl --audio clips --out runs/mine

Each line of my.jsonl is {"audio": "kettle.wav", "question": "What do you hear?", "answer": "A
kettle."}. It starts from the model of the package, or from --checkpoint, holds some clips of each
class out, trains as stage 3 does (`ltu_jax.train`, the same trainer), and asks about the held-out
clips before and after. Run the same command again to go on after an interruption. The result is a
run like any other: ask, serve, evaluate and convert take it. docs/your_own_data.md walks through.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines import write_records
from data_pipelines.manifests import own_rows
from data_pipelines.manifests.own_rows import OwnRow
from ltu_jax import evaluate, train
from ltu_jax.core import errors, outputs
from ltu_jax.core.compilation import keep_compiled
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from ltu_jax.core.outputs import Maker
from ltu_jax.core.paths import argument, local_arguments
from ltu_jax.core.values import whole
from ltu_jax.generation import transcription
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.weights import places
from ltu_jax.weights.adapter_folder import shipped
from ltu_jax.weights.open import open_base, open_model
from ltu_jax.weights.open_whispers import encoder_dtype, open_listener, open_transcriber
from ltu_jax.weights.store import Weights

START, DATA, VALIDATION = "start.json", "data", "validation"
_MAKER = Maker(name="`python -m ltu_jax.finetune`")
_CONFIG = "configs/own_sounds.py"
_PASSES, _ROWS, _FEWEST, _MOST = 6, 4, 40, 400  # over the training rows; rows a step; steps
_SHARE = 0.2
_PASSED_ON = "--config."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.finetune",
        description=__doc__,
        epilog="--config.KEY=VALUE goes on to the trainer: `python -m ltu_jax.train --help`",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("--data", type=Path, required=True, metavar="JSONL", help="the questions")
    it.add_argument("--audio", type=Path, metavar="DIR", help="the clips; default: beside --data")
    it.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run to make")
    it.add_argument(
        "--checkpoint", type=argument, metavar="DIR",
        help="what to start from: a run, a checkpoint or a weights directory; default: the model "
        "of this version, if it comes with one",
    )  # fmt: skip
    it.add_argument("--whisper", type=argument, metavar="DIR", help="if not where it says")
    it.add_argument("--llama", type=argument, metavar="DIR", help="the same of the language model")
    it.add_argument(
        "--steps", type=int, metavar="N",
        help=f"default: {_PASSES} passes over the training rows, {_FEWEST} to {_MOST} steps",
    )  # fmt: skip
    it.add_argument(
        "--val-share", type=float, default=_SHARE, metavar="SHARE",
        help=f"of the clips of each class that are held out; default: {_SHARE}",
    )  # fmt: skip
    return it


def run(options: argparse.Namespace, trainer: Sequence[str]) -> int:
    """Fine-tune; returns 0, or `train.RESUME` after a signal.

    Args:
        options: of the command line.
        trainer: further arguments of the trainer.

    Raises:
        UserError: rows, clips, a checkpoint or an option that cannot be used; nothing is trained.
    """
    if options.steps is not None:
        whole("steps", options.steps)
    start_from = shipped(options.checkpoint)
    folder = options.data.parent if options.audio is None else options.audio
    rows = own_rows.read(options.data, folder=folder, validation_share=options.val_share)
    out = outputs.join(
        options.out, _MAKER, names=(START, DATA, VALIDATION), inputs=[options.data, folder]
    )
    _show(rows)
    begun = (out / START).is_file()
    start = _start(options, start_from, rows, out=out)
    if begun and read_json(out / START) != start:
        raise UserError(
            f"--out {options.out} was begun with other options, clips or weights (see "
            f"{out / START}): give the same again to go on, or another --out"
        )
    keep_compiled()
    write_json(out / outputs.MARKER, outputs.signature(_MAKER))
    write_json(out / START, start)
    training = [f"--config={_CONFIG}:{out / START}", *trainer]
    train.read_stages(train.resolve(train.parse_config(training)))  # before anything is computed
    spoken = _spoken(rows, start, out=out)
    _records(rows, spoken, start, folder=folder, out=out)
    write_jsonl(out / VALIDATION / "questions.jsonl", own_rows.questions(rows, spoken=spoken))
    before = _measure("before", start["init_from"], options, out=out)
    status = train.main(training)
    if status:
        return status
    after = _measure("after", options.out, options, out=out)
    print(_table(before, after))
    print(f'ask it    python -m ltu_jax.ask --checkpoint {options.out} CLIP.wav "QUESTION"')
    return 0


def _show(rows: Sequence[OwnRow]) -> None:
    found = own_rows.counts(rows)
    names = list(dict.fromkeys([*found[own_rows.TRAIN], *found[own_rows.VALIDATION]]))
    width = max(map(len, [*names, "class"]))
    print(f"{'class':<{width}}  {'train':>6}{'held out':>10}  clips")
    for name in names:
        train_, held = (found[side][name] for side in (own_rows.TRAIN, own_rows.VALIDATION))
        print(f"{name:<{width}}  {train_:>6}{held:>10}", flush=True)


def _start(
    options: argparse.Namespace, start_from: Path, rows: Sequence[OwnRow], *, out: Path
) -> dict[str, Any]:
    """Return what `configs/own_sounds.py` reads.

    Raises:
        UserError: no model there, or one whose bases are nowhere.
    """
    opened = open_model(start_from, llama=options.llama)
    if opened.kind != "ltu-as":
        raise UserError(f"{opened.named} holds {opened.kind!r} weights: give those of an LTU-AS")
    hears = open_listener(opened, options.whisper)
    if hears is None:
        raise UserError(f"{opened.named} names no Whisper: give the one that hears with --whisper")
    writes, metadata = open_transcriber(opened, None), opened.checkpoint or {}
    training = [row for row in rows if row.split == own_rows.TRAIN]
    steps = min(max(math.ceil(_PASSES * len(training) / _ROWS), _FEWEST), _MOST)
    compute = dict((metadata.get("config") or {}).get("compute") or {})
    compute |= {"encoder_dtype": encoder_dtype(opened.checkpoint)}
    return {
        "run_dir": str(out),
        "init_from": places.lasting(start_from),
        "steps": options.steps or steps,
        "records": str(out / DATA / "records"),
        "llama": _language_model(options, opened),
        "whisper": _place(hears),
        "transcriber": "" if writes is None else _place(writes),
        "transcription": metadata.get("transcription") or "quiet",
        "model": opened.config,
        "whisper_config": hears.config,
        "compute": {key: value for key, value in compute.items() if key != "compilation_cache"},
        "val_share": options.val_share,
    }


def _language_model(options: argparse.Namespace, opened: Weights) -> str:
    """Return where the plain language model of a model lies."""
    if options.llama is not None:
        return str(options.llama)
    if opened.checkpoint is None:
        raise UserError(
            f"{opened.named} holds its language model together with what was trained: give the "
            "plain one with --llama"
        )
    entry = opened.checkpoint["base"]["llama"]
    return _place(open_base(entry, relative_to=opened.path, subject="language model"))


def _place(weights: Weights) -> str:
    return weights.address or str(weights.path.absolute())


def _spoken(rows: Sequence[OwnRow], start: Mapping[str, Any], *, out: Path) -> dict[str, str]:
    """Return what is said in each clip: as its rows tell, else as Whisper writes it, once.

    Raises:
        UserError: rows of a clip that contradict each other, or a Whisper that cannot write.
    """
    spoken: dict[str, str] = {}
    for row in rows:
        if row.spoken_text is None:
            continue
        if spoken.setdefault(row.audio, row.spoken_text) != row.spoken_text:
            raise UserError(f"{row.audio} has two spoken_texts: give the same in all of its rows")
    file = out / DATA / "transcripts.jsonl"
    known = {line["audio"]: line["spoken_text"] for _, line in read_jsonl(file)}
    missing = {row.audio: row.path for row in rows if row.audio not in (spoken | known)}
    if missing:
        print(f"writing down what is said in {len(missing)} clips ...", flush=True)
        transcriber = load_transcriber(start["transcriber"] or start["whisper"])
        rule = transcription.rule(start["transcription"])
        names, clips = list(missing), (load_audio(path).samples for path in missing.values())
        with JsonlWriter(file) as writer:
            for index, said in transcriber.iterate(clips, batch_size=4, options=rule):
                known[names[index]] = said.spoken_text
                writer.append({"audio": names[index], "spoken_text": said.spoken_text})
    return known | spoken


def _records(
    rows: Sequence[OwnRow],
    spoken: Mapping[str, str],
    start: Mapping[str, Any],
    *,
    folder: Path,
    out: Path,
) -> None:
    """Write the records of all clips, with what the encoder hears in them."""
    file = out / DATA / "rows.jsonl"
    write_jsonl(file, [own_rows.official(row, spoken_text=spoken[row.audio]) for row in rows])
    arguments = ["--json", file, "--audio-root", folder, "--out", start["records"]]
    arguments += ["--features", start["whisper"], "--no-tokens", "--max-bad-rows", "0"]
    arguments += ["--encoder-dtype", start["compute"]["encoder_dtype"], "--max-quarantined", "0"]
    write_records.command([str(one) for one in arguments])


def _measure(
    name: str, checkpoint: str | Path, options: argparse.Namespace, *, out: Path
) -> list[dict[str, Any]]:
    """Return the answers to the held-out questions and their scores; asked once."""
    folder = out / VALIDATION / name
    words = ["--checkpoint", checkpoint, "--jsonl", out / VALIDATION / "questions.jsonl"]
    words += ["--modes", "joint", "--decodings", "greedy", "--out", folder]
    words += ["--cache", out / VALIDATION / "cache.sqlite"]
    for option in ("whisper", "llama"):
        given = getattr(options, option)
        words += [] if given is None else [f"--{option}", given]
    if evaluate.main([str(word) for word in words]):
        raise UserError(f"the held-out clips could not be asked about: see {folder}")
    return [line for _, line in read_jsonl(folder / "samples.jsonl")]


def _table(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str:
    """Return the shares of right answers by class, before and after."""
    shares = [_right(before), _right(after)]
    names = list(shares[0])
    width = max(map(len, names))
    lines = [f"{'held out':<{width}}{'clips':>8}{'right before':>14}{'right after':>13}"]
    for name in names:
        of_class = [share[name] for share in shares]
        figures = [f"{sum(found) / len(found):.0%}" for found in of_class]
        lines.append(f"{name:<{width}}{len(of_class[0]):>8}{figures[0]:>14}{figures[1]:>13}")
    return "\n".join(lines)


def _right(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the strict score of each answer by class, and of all."""
    found: dict[str, list[float]] = {}
    for line in lines:
        (scores,) = line["scores"].values()
        found.setdefault(line["reference"][0], []).append(scores["strict"]["score"])
    return dict(sorted(found.items())) | {"all": [one for of in found.values() for one in of]}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        words = errors.arguments(given)
        trainer = [word for word in words if word.startswith(_PASSED_ON)]
        own = [word for word in words if not word.startswith(_PASSED_ON)]
        return run(local_arguments(parser().parse_args(own)), trainer)

    errors.main(command)


if __name__ == "__main__":
    main()
