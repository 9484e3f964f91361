"""Build the mini Open-ASQA corpus: audio, transcripts by our Whisper, questions and answers.

    python -m data_pipelines.build_mini --out data/mini --whisper weights/whisper-tiny.en

Steps: ``audio`` (synthesise and measure every clip), ``transcribe`` (Whisper writes the spoken
text), ``pairs`` (questions, test items, manifest). Each goes on where it was interrupted and is
skipped when its output is there and valid. The layout of the folder is described in docs/data.md.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from data_pipelines.mini import clip_plan, closed_questions
from data_pipelines.mini.builder import (
    MAKER,
    NAMES,
    STEPS,
    BuildError,
    build_audio,
    build_pairs,
    is_valid,
    questions_of_another_format,
    transcribe,
    whisper_transcriber,
)
from ltu_jax.core import errors, outputs
from ltu_jax.core.files import write_json
from ltu_jax.core.paths import local_arguments
from ltu_jax.sources import packages


def print_summary(manifest: dict[str, Any]) -> None:
    """Print a table of clips and pairs per split and kind, and of test items per row."""
    print(f"\n{'split':8}{'kind':16}{'clips':>8}{'pairs':>8}{'minutes':>9}")
    for split, kinds in manifest["counts"].items():
        for kind, count in kinds.items():
            print(
                f"{split:8}{kind:16}{count['clips']:8}{count['pairs']:8}"
                f"{count['seconds'] / 60:9.1f}"
            )
    total = Counter()
    for kinds in manifest["counts"].values():
        for count in kinds.values():
            total.update(count)
    print(f"{'total':8}{'':16}{total['clips']:8}{total['pairs']:8}{total['seconds'] / 60:9.1f}")
    items = ", ".join(f"{row} {count}" for row, count in manifest["test_items"].items())
    print(f"test items: {items}\n")


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.build_mini",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("data/mini"), help="corpus folder")
    parser.add_argument(
        "--whisper", type=Path, help="converted Whisper weights folder (step transcribe)"
    )
    parser.add_argument(
        "--packages", type=Path, default=packages.DEFAULT_CACHE, help="package cache folder"
    )
    parser.add_argument(
        "--steps", default=",".join(STEPS), help="comma-separated: audio, transcribe, pairs"
    )
    parser.add_argument("--size", default="mini", choices=sorted(clip_plan.SIZES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render audio")
    parser.add_argument("--batch", type=int, default=16, help="clips transcribed at once")
    arguments = local_arguments(parser.parse_args(argv))
    out, steps = arguments.out, arguments.steps.split(",")
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise BuildError(f"unknown step {unknown[0]!r}; the steps are {', '.join(STEPS)}")
    if is_valid(out, seed=arguments.seed, size=arguments.size):
        print(f"{out} is complete and valid; nothing to do")
        return
    if "transcribe" in steps and arguments.whisper is None:
        raise BuildError(
            "step transcribe needs --whisper DIR (a folder written by python -m ltu_jax.convert)"
        )
    reads = [arguments.whisper, arguments.packages]
    if "pairs" in steps and (other := questions_of_another_format(out)) is not None:
        print(
            f"{out} has questions of format {other}, and this version writes format "
            f"{closed_questions.FORMAT}: they are written anew with the test items; audio and "
            "spoken text stay as they are. Records and models that were made of it are of the "
            "questions of before"
        )
    place = outputs.join(out, MAKER, names=NAMES, inputs=reads)
    write_json(place / outputs.MARKER, outputs.signature(MAKER))
    started = time.monotonic()
    if "audio" in steps:
        packages.fetch(packages.CORPUS_PACKAGES, cache=arguments.packages)
        entries = clip_plan.make_plan(clip_plan.SIZES[arguments.size], seed=arguments.seed)
        build_audio(out, entries=entries, cache=arguments.packages, workers=arguments.workers)
    if "transcribe" in steps:
        transcriber = whisper_transcriber(arguments.whisper, batch=arguments.batch)
        transcribe(out, transcriber=transcriber, batch=arguments.batch)
    if "pairs" in steps:
        print_summary(build_pairs(out, seed=arguments.seed, size=arguments.size))
    print(f"{out}: {', '.join(steps)} done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    errors.main(run)
