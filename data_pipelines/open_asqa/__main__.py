"""Make Open-ASQA: from the metadata of its fourteen sources to questions and answers.

    python -m data_pipelines.open_asqa sources
    python -m data_pipelines.open_asqa check --sources sources.toml
    python -m data_pipelines.open_asqa build --sources sources.toml --out asqa
    python -m data_pipelines.open_asqa STEP --help

A folder grows step by step; each step goes on where it was stopped, and needs only those before it
whose result it adds to. `build` alone makes closed-ended questions. docs/open_asqa.md explains all.
"""

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence

from ltu_jax.core import errors
from ltu_jax.core.paths import local_arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand: the module with its `add_arguments(parser)` and `run(arguments)`."""

    module: str
    summary: str


STEPS: Mapping[str, Command] = {
    "sources": Command(module="sources_step", summary="the sources, and the files that each needs"),
    "check": Command(
        module="check_step", summary="what is there of the sources, and what is missing"
    ),
    "build": Command(
        module="build_step", summary="clips and closed-ended questions of the sources"
    ),
    "transcribe": Command(
        module="transcribe_step", summary="what is said in the clips, by Whisper"
    ),
    "harvest": Command(module="harvest_step", summary="what a Whisper writes where nobody speaks"),
    "style": Command(module="style_step", summary="pitch, speed and volume of speakers"),
    "generate": Command(
        module="generate_step", summary="open-ended questions and answers by a language model"
    ),
    "score": Command(module="score_step", summary="scores of open-ended pairs by other models"),
    "filter": Command(module="filter_step", summary="which open-ended pairs are accepted"),
    "merge": Command(module="merge_step", summary="all questions as one file of official rows"),
    "explain": Command(module="explain_step", summary="where a row or a clip is from"),
    "import": Command(module="import_step", summary="rows of other projects' forms, made official"),
    "export": Command(module="export_step", summary="official rows in other projects' forms"),
    "statistics": Command(
        module="statistics_step", summary="clips and questions by source and task"
    ),
    "ids": Command(module="ids_step", summary="lists of the clips that a published file has"),
}


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = local_arguments(_parser(given[:1]).parse_args(given))
    return flags.run(flags) or 0


def _parser(named: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; of the steps only the named one is imported."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.open_asqa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, step in STEPS.items():
        if name not in named:
            steps.add_parser(name, help=step.summary)
            continue
        module = importlib.import_module(f"data_pipelines.open_asqa.{step.module}")
        own = steps.add_parser(
            name,
            help=step.summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(own)
        own.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    errors.main(command)
