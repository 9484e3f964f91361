"""Train steps of LTU-AS in PyTorch and in ltu_jax: same model, weights, pairs and optimiser.

    python -m benchmarks.train_step [--size cpu|7b] [--rounds 5] [--out DIR]

PyTorch is `transformers` LLaMA with `peft` LoRA and a TLTR (benchmarks/torch_reference.py): SDPA,
float32 on a CPU, bf16 autocast over a bf16 base on a GPU. Its rows are the official collator's,
one pair each, padded on the left: in the order drawn ("random"), and of like length ("sorted").
ltu_jax takes the very same batches, and the same pairs as rows grouped by clip ("grouped"). Before
anything is timed both must compute the same loss, within 1e-4 in float32; else the script stops.

All contenders take turns in one process and medians are compared. A round is one optimiser step
for each batch: dropout, clipping and AdamW included. "PyTorch, oneDNN" sends the linear layers
through oneDNN: on CPUs not of Intel PyTorch's own float32 products leave AVX-512 unused, and this
row shows what remains of a difference without that. Peak memory is that of a process of its own on
a CPU, of the allocators on a GPU. Ratios are against the fastest PyTorch of the machine, whatever
its BLAS and order of rows, and against the fastest that takes rows as drawn, as the official code
does. MFU counts the maths that the pairs need with every clip heard once, whatever a contender
computes besides. On a GPU the base is also in int8, and attention cuDNN's; on a CPU these rows run
if --rows names them (cuDNN's never).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import alternate, torch_reference
from benchmarks.batches import Work
from benchmarks.joined import SAMPLES, STEPS, steps_beside_pytorch
from benchmarks.model_sizes import SIZES
from benchmarks.train_contenders import (
    CLIP_NORM,
    LEARNING_RATE,
    TOLERANCE,
    Ours,
    Setup,
    check_losses,
    draw_work,
    model_flops,
    random_params,
    setup,
)
from ltu_jax.core import errors
from ltu_jax.training.flops import peak_flops

ONLY_CPU, ONLY_GPU = ("onednn",), ("jax int8", "jax cudnn")  # unless named with --rows


def make_torch(plan: Setup, params: Mapping[str, Any], *, onednn: bool) -> torch_reference.Trainer:
    """Make PyTorch's trainer on the device that JAX uses."""
    on_gpu = alternate.on_gpu()
    base = torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32
    model = torch_reference.build(plan.config, params, base_dtype=base)
    if plan.torch_checkpointing:
        model.language.get_base_model().gradient_checkpointing_enable()
    if onednn:
        torch_reference.use_onednn(model)
    return torch_reference.Trainer(
        model=torch_reference.on_cuda(model) if on_gpu else model,
        learning_rate=LEARNING_RATE,
        clip_norm=CLIP_NORM,
        autocast=on_gpu,
    )


def make_models(plan: Setup, kinds: set[str]) -> dict[str, Any]:
    """Make the wanted models of `STEPS`: the same weights, each with an optimiser of its own."""
    makers = {
        "jax": Ours,
        "jax cudnn": partial(Ours, attention="cudnn"),
        "torch": partial(make_torch, onednn=False),
        "onednn": partial(make_torch, onednn=True),
    }
    models = {}
    if wanted := sorted(kinds & makers.keys()):
        params = random_params(plan, seed=0)
        models = {kind: makers[kind](plan, params) for kind in wanted}
    if "jax int8" in kinds:
        params = random_params(plan, seed=0, int8_base=True)
        models["jax int8"] = Ours(plan, params, int8_base=True)
    return models


def peak_of(name: str, plan: Setup, work: Work) -> int:
    """Return the peak bytes of a process of its own, or of the GPU's allocator, after one round."""
    kind, layout = STEPS[name]
    model = make_models(plan, {kind})[kind]
    return _round_peak(kind, lambda: model.run(getattr(work, layout)))


def _round_peak(kind: str, run: Callable[[], Any]) -> int:
    """Run a round; of JAX the peak is that since the process began."""
    if alternate.on_gpu() and kind == "torch":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    run()
    return alternate.peak_bytes()


def peaks(names: list[str], arguments: list[str]) -> dict[str, int]:
    """Return `peak_of` for each contender, in a process of its own."""
    found = {}
    for name in names:
        alternate.show(f"peak memory of {name}")
        command = [sys.executable, "-m", "benchmarks.train_step", *arguments, "--peak-of", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise errors.UserError(f"peak memory of {name}: {done.stderr[-1500:]}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(plan: Setup, work: Work, *, names: list[str], rounds: int) -> dict[str, Any]:
    """Check the losses, time, and put the rows of the table together.

    On a GPU the rows have their peak memory where no other model of JAX lay beside them.
    """
    kinds = {STEPS[name][0] for name in names}
    models = make_models(plan, kinds)
    layouts = {kind: {STEPS[name][1] for name in names if STEPS[name][0] == kind} for kind in kinds}
    tolerance = TOLERANCE[plan.dtype]
    losses = check_losses(models, work, tolerance=tolerance, layouts=layouts)
    alternate.show(f"losses agree: {losses}")

    def contender(name: str) -> alternate.Contender:
        kind, layout = STEPS[name]
        return alternate.Contender(name=name, run=lambda: models[kind].run(getattr(work, layout)))

    contenders = [contender(name) for name in names]
    memory = {}
    if alternate.on_gpu() and (len(names) == 1 or kinds == {"torch"}):
        memory = {one.name: _round_peak(STEPS[one.name][0], one.run) for one in contenders}
    timings = alternate.alternate(contenders, rounds=rounds)
    peak, source = peak_flops()
    flops, rows = model_flops(plan, work), []
    for name, timing in timings.items():
        shapes = [batch["input_ids"].shape for batch in getattr(work, STEPS[name][1])]
        rows.append(
            {
                "contender": name,
                SAMPLES: work.pairs / timing.median,
                "tokens_per_second": work.text_tokens / timing.median,
                "mfu": flops / timing.median / peak,
                "batches": " ".join(f"{r}x{t}" for r, t in shapes),
                "peak_gb": memory[name] / 1e9 if name in memory else None,
            }
        )
    return {
        "losses": losses,
        "tolerance": tolerance,
        "flops_per_round": flops,
        "peak_flops": {"flop_per_second": peak, "source": source},
        "rows": steps_beside_pytorch(rows),
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        help="tiny: a toy; cpu: SmolLM2-135M and a TLTR of width 384, minutes on two cores; "
        "7b: LLaMA-7B, for a GPU of 80 GB (default: 7b on a GPU, else cpu)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--batches", type=int, default=3, help="batches in a round (default 3)")
    parser.add_argument("--pairs-per-batch", type=int, help="default 8, at 7b 64")
    parser.add_argument("--pairs-per-clip", type=int, default=4, help="pairs of a grouped row")
    parser.add_argument("--rows", nargs="+", choices=STEPS, metavar="NAME", help="default: all of "
                        + "; ".join(STEPS))  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    parser.add_argument("--peak-of", choices=STEPS, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU
    given = command_line().parse_args()
    plan = setup(
        given.size or ("7b" if alternate.on_gpu() else "cpu"),
        pairs_per_batch=given.pairs_per_batch,
        pairs_per_clip=given.pairs_per_clip,
        batches=given.batches,
    )
    work = draw_work(plan, seed=0)
    if given.peak_of:
        print(peak_of(given.peak_of, plan, work))
        return
    left_out = ONLY_CPU if alternate.on_gpu() else ONLY_GPU
    names = given.rows or [name for name, (kind, _) in STEPS.items() if kind not in left_out]
    found = measure(plan, work, names=names, rounds=given.rounds)
    without = [row["contender"] for row in found["rows"] if row["peak_gb"] is None]
    if without and not given.no_memory:
        arguments = [
            f"--size={given.size or ('7b' if alternate.on_gpu() else 'cpu')}",
            f"--batches={plan.batches}",
            f"--pairs-per-batch={plan.pairs_per_batch}",
            f"--pairs-per-clip={plan.pairs_per_clip}",
        ]
        memory = peaks(without, arguments)
        for row in found["rows"]:
            row["peak_gb"] = memory.get(row["contender"], 0) / 1e9 or row["peak_gb"]
    print(alternate.table(found["rows"]))
    alternate.write(
        "train_step",
        {
            "what": f"one optimiser step for each of {plan.batches} batches of "
            f"{plan.pairs_per_batch} pairs, {work.text_tokens} text tokens in all",
            "size": given.size or ("7b" if alternate.on_gpu() else "cpu"),
            "dtype": plan.dtype,
            "torch_threads": torch.get_num_threads(),
        }
        | found,
        out=given.out,
    )


if __name__ == "__main__":
    errors.main(main)
