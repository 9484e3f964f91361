"""Plan a stage for a TPU slice or a GPU that is not at hand.

    python -m ltu_jax.plan --config=configs/stage3.py:v5e-16 --slice v5e-16 [--config.key=value]
    python -m ltu_jax.plan --config=configs/stage3.py:v5e-16 --slice v5e-16 --search
    python -m ltu_jax.plan --config=configs/stage3.py:h200 --gpu h200

The step that would run is compiled with the TPU compiler of libtpu; no TPU, weights or data are
needed. All numbers are estimates; docs/planner.md says how they are made.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from ltu_jax.core import errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.paths import local_arguments
from ltu_jax.core.values import real_number
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.planning.estimate import plan_gpu, plan_slice
from ltu_jax.planning.plan_report import Plan, plan_report
from ltu_jax.planning.plan_request import PlanRequest, plan_request
from ltu_jax.planning.search import search
from ltu_jax.planning.slices import find_gpu, find_slice
from ltu_jax.train import parse_config, resolve
from ltu_jax.training.stage_config import STAGES, StageSettings, stage_settings

MAKER = outputs.Maker(
    name="`python -m ltu_jax.plan`",
    folder=False,
    before=outputs.json_with("arguments", "fits", "peak_bytes_per_chip"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(f"{message}; python -m ltu_jax.plan --help lists all options")


def main(argv: Sequence[str]) -> int:
    """Print the plan; 0 if it fits, 1 if it does not."""
    options, rest = _options(argv)
    if options.json:
        outputs.claim(options.json, MAKER, option="--json")
    # The compiler's devices are asked for by name; everything else is for a CPU.
    jax.config.update("jax_platforms", "cpu")
    settings = _settings(rest, stage=options.stage, size=options.size)
    tpu = find_slice(options.slice) if options.slice else None
    gpu = find_gpu(options.gpu) if options.gpu else None
    if (tpu is None) == (gpu is None):
        raise UserError("give either --slice (as v5e-16) or --gpu (as h200)")
    if gpu is not None and options.search:
        raise UserError("--search needs the TPU compiler: give --slice instead of --gpu")
    request = plan_request(
        settings,
        text_length=options.text_length,
        mean_text=options.mean_text,
        pairs_per_row=options.pairs_per_row,
        pairs=options.pairs,
        clips_per_row=options.clips_per_row,
    )
    if gpu is not None:
        plan = plan_gpu(request, gpu, count=options.gpus)
    elif options.search:
        plan = _search(request, options)
    else:
        plan = plan_slice(request, tpu)
    print(plan_report(plan), flush=True)
    if options.json:
        write_json(options.json, {"arguments": _without_json(argv), **plan.to_json()}, MAKER)
    return 0 if plan.fits else 1


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(
        prog="python -m ltu_jax.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--slice", help="TPU slice: v5e-16, v5e-64, v4-32, v5p-16, v6e-16, ...")
    parser.add_argument("--gpu", help="a GPU, by arithmetic: h200, h100, a100, a6000")
    parser.add_argument("--gpus", type=int, default=1, help="how many of them in one machine")
    parser.add_argument("--stage", choices=STAGES, help="which stage of a curriculum")
    parser.add_argument("--size", choices=sorted(LLAMA_SIZES), help="another language model")
    parser.add_argument("--text-length", type=int, help="padded text tokens of every row")
    parser.add_argument("--mean-text", type=real_number, help="real text tokens of a pair")
    parser.add_argument("--pairs-per-row", type=real_number, help="pairs in a row, in the mean")
    parser.add_argument("--clips-per-row", type=real_number, help="clips in a row, in the mean")
    parser.add_argument("--pairs", type=real_number, help="pairs of the stage, all epochs together")
    parser.add_argument("--search", action="store_true", help="try meshes, remat, micro-batches")
    parser.add_argument("--compiles", type=int, default=6, help="most compilations of a search")
    parser.add_argument("--json", type=Path, help="also write the plan to this file")
    options, rest = parser.parse_known_args(list(argv))
    return local_arguments(options), rest


def _without_json(argv: Sequence[str]) -> list[str]:
    """Return the arguments that make the same plan again, wherever it is written."""
    rest, skip = [], False
    for argument in argv:
        if not skip and not argument.startswith("--json"):
            rest.append(argument)
        skip = argument == "--json"
    return rest


def _settings(rest: Sequence[str], *, stage: str | None, size: str | None) -> StageSettings:
    stages = {config["stage"]: config for config in resolve(parse_config(rest))}
    if stage is None and len(stages) > 1:
        raise UserError(f"this config has several stages; add --stage, one of {', '.join(stages)}")
    name = stage or next(iter(stages))
    if name not in stages:
        raise UserError(f"--stage: {name!r} is not in this config, which has {', '.join(stages)}")
    settings = stage_settings(stages[name])
    if size is None:
        return settings
    if settings.model.llama is None:
        raise UserError(f"--size: {settings.stage} has no language model")
    model = dataclasses.replace(settings.model, llama=LLAMA_SIZES[size])
    return dataclasses.replace(settings, model=model)


def _search(request: PlanRequest, options: argparse.Namespace) -> Plan:
    tpu = find_slice(options.slice)
    fitting = search(
        request,
        tpu,
        compiles=options.compiles,
        plan=plan_slice,
        say=lambda line: print(line, flush=True),
    )
    if not fitting:
        raise UserError(
            f"none of the {options.compiles} most promising settings fits {tpu.name}; raise "
            "--compiles, or use a larger slice"
        )
    print("\nbest first:")
    for candidate, plan in fitting:
        timing = plan.timing
        print(
            f"  {timing.est_step_seconds:.3f} s  {timing.pairs_per_second:8.1f} pairs/s  MFU bound "
            f"{timing.mfu_bound:.1%}  peak {plan.memory.peak_bytes_per_chip / 1e9:.1f} GB  "
            f"{candidate.flags()}"
        )
    print()
    return fitting[0][1]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    errors.main(lambda: main(sys.argv[1:]))
