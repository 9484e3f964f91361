"""Build a corpus of windows: `python -m data_pipelines.real.build_windows --out data/real`.

Windows of ten seconds of real recordings (assets/recordings), one side of a split to learn from and
one to be scored on, with what YAMNet hears in those that are learnt from. A run that was stopped
goes on. Then, for the tagging stage:

    python -m data_pipelines.write_records --corpus data/real --out data/real_records \\
        --features assets/weights/whisper-base --no-tokens
    python -m ltu_jax.train --config=configs/tagging.py:real
"""

import argparse
from pathlib import Path

from data_pipelines.real import fetch_recordings, recording_table, window_corpus, window_sides
from data_pipelines.real.window_sides import CHOICES, EACH_FOLD, WindowOptions
from data_pipelines.real.yamnet import PACKAGE, Yamnet
from ltu_jax.core import errors, files, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import local_arguments
from ltu_jax.sources import packages

SPOKEN_SHARE = 0.35


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    arguments = _arguments(argv)
    spoken = {}
    if arguments.speech is not None:
        spoken = window_corpus.read_spoken(arguments.speech)
    if arguments.ships_only:
        spoken = {name: one for name, one in spoken.items() if one.ships}
    voices = {
        split: {name: one.seconds for name, one in spoken.items() if one.split == split}
        for split in (recording_table.TRAIN, recording_table.VALIDATION)
    }
    given = [one for one in recording_table.recordings() if one.ships or not arguments.ships_only]
    options = WindowOptions(
        of_class=arguments.of_class,
        more=arguments.more,
        speech=SPOKEN_SHARE if voices[recording_table.TRAIN] else 0.0,
        quiet=arguments.quiet,
        seed=arguments.seed,
    )
    planned = window_sides.plan_sides(
        given,
        hold_out=arguments.hold_out,
        options=options,
        voices=voices[recording_table.TRAIN],
        held_voices=voices[recording_table.VALIDATION],
    )
    reads = [arguments.recordings, arguments.speech, arguments.cache]
    out = outputs.join(arguments.out, window_corpus.MAKER, names=window_corpus.NAMES, inputs=reads)
    files.write_json(out / outputs.MARKER, outputs.signature(window_corpus.MAKER))
    packages.fetch([PACKAGE], cache=arguments.cache)
    manifest = window_corpus.write_corpus(
        out,
        planned,
        options={
            "hold_out": arguments.hold_out,
            "ships_only": arguments.ships_only,
            "of_class": arguments.of_class,
            "more": arguments.more,
            "quiet": arguments.quiet,
            "seed": arguments.seed,
            "speech": str(arguments.speech or ""),
        },
        given=given,
        spoken=spoken,
        load=window_corpus.sources(arguments.recordings, given, spoken, speech=arguments.speech),
        teacher=Yamnet(arguments.cache),
    )
    window_corpus.show(manifest)
    print(out)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.real.build_windows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="corpus folder")
    parser.add_argument(
        "--hold-out",
        choices=CHOICES,
        default=window_sides.VAL,
        help="the validation packages, a fold of packages, nothing, or each fold in turn (for "
        "rotations: a dataset for each)",
    )
    parser.add_argument("--ships-only", action="store_true", help="licences that may be given away")
    parser.add_argument(
        "--of-class", type=int, default=36, help="windows of each class (of each part)"
    )
    parser.add_argument("--more", type=float, default=0.35, help="share with a second sound")
    parser.add_argument(
        "--quiet",
        type=int,
        default=60,
        help="windows of silence, and as many of noise (not with `--hold-out folds`)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speech", type=Path, help="folder with speech.jsonl, who speaks in some")
    parser.add_argument(
        "--recordings", type=Path, default=fetch_recordings.DEFAULT_FOLDER, help="fetched ones"
    )
    parser.add_argument(
        "--cache", type=Path, default=packages.DEFAULT_CACHE, help="package cache folder"
    )
    arguments = local_arguments(parser.parse_args(argv))
    for name, least, most in (
        ("of_class", int(arguments.hold_out != EACH_FOLD), 10_000),
        ("more", 0.0, 1.0),
        ("quiet", 0, 10_000),
        ("seed", 0, 1 << 31),
    ):
        if not least <= (value := getattr(arguments, name)) <= most:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {value}: give a number from {least} to {most}")
    return arguments


if __name__ == "__main__":
    errors.main(run)
