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
does. MFU counts the maths that the pairs need with every clip heard
once, whatever a contender computes besides.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks import alternate, torch_reference
from benchmarks.batches import Work
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

# name -> (model, layout of its batches)
ROWS = {
    "PyTorch, random": ("torch", "random"),
    "PyTorch, sorted": ("torch", "sorted"),
    "PyTorch oneDNN, random": ("onednn", "random"),
    "PyTorch oneDNN, sorted": ("onednn", "sorted"),
    "ltu_jax single, random": ("jax", "random"),
    "ltu_jax single, sorted": ("jax", "sorted"),
    "ltu_jax grouped": ("jax", "grouped"),
}
PYTORCH = tuple(name for name in ROWS if name.startswith("PyTorch"))


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
        model=model.to("cuda" if on_gpu else "cpu"),
        learning_rate=LEARNING_RATE,
        clip_norm=CLIP_NORM,
        autocast=on_gpu,
    )


def make_models(plan: Setup, params: Mapping[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Make the wanted models of `ROWS`, each with weights and optimiser of its own."""
    makers = {
        "jax": lambda: Ours(plan, params),
        "torch": lambda: make_torch(plan, params, onednn=False),
        "onednn": lambda: make_torch(plan, params, onednn=True),
    }
    return {kind: makers[kind]() for kind in sorted(kinds)}


def peak_of(name: str, plan: Setup, work: Work) -> int:
    """Return the peak bytes of this process, or of the GPU's allocator, after one round."""
    kind, layout = ROWS[name]
    model = make_models(plan, random_params(plan, seed=0), {kind})[kind]
    model.run(getattr(work, layout))
    if not alternate.on_gpu():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if kind == "jax":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return torch.cuda.max_memory_allocated()


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
    """Check the losses, time, and put the rows of the table together."""
    params = random_params(plan, seed=0)
    models = make_models(plan, params, {ROWS[name][0] for name in names})
    tolerance = TOLERANCE[plan.dtype]
    theirs = next(models[kind] for kind in ("torch", "onednn") if kind in models)
    checked = check_losses(models["jax"], theirs, work, tolerance=tolerance)
    alternate.show(f"losses agree: {checked}")

    def contender(name: str) -> alternate.Contender:
        kind, layout = ROWS[name]
        return alternate.Contender(name=name, run=lambda: models[kind].run(getattr(work, layout)))

    timings = alternate.alternate([contender(name) for name in names], rounds=rounds)
    peak, source = peak_flops()
    flops, rows = model_flops(plan, work), []
    ratios = alternate.beside_fastest(timings, names=PYTORCH)
    random = [name for name in PYTORCH if name.endswith("random")]
    # The official code draws its batches at random; sorting them is PyTorch at its best.
    against_random = {}
    if any(name in timings for name in random):
        against_random = alternate.beside_fastest(timings, names=random)
    for name, timing in timings.items():
        shapes = [batch["input_ids"].shape for batch in getattr(work, ROWS[name][1])]
        row = {
            "contender": name,
            "samples_per_second": work.pairs / timing.median,
            "tokens_per_second": work.text_tokens / timing.median,
            "mfu": flops / timing.median / peak,
        }
        row["x fastest PyTorch"] = ratios[name]
        row["x fastest PyTorch, random"] = against_random.get(name)
        rows.append(row | {"batches": " ".join(f"{r}x{t}" for r, t in shapes)})
    return {
        "losses": {
            layout: dict(zip(("torch", "jax"), pair, strict=True))
            for layout, pair in checked.items()
        },
        "tolerance": tolerance,
        "flops_per_round": flops,
        "peak_flops": {"flop_per_second": peak, "source": source},
        "rows": rows,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU
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
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="NAME", help="default: all of "
                        + "; ".join(ROWS))  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    parser.add_argument("--peak-of", choices=ROWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
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
    # oneDNN is about CPUs
    names = given.rows or [name for name in ROWS if not (alternate.on_gpu() and "oneDNN" in name)]
    found = measure(plan, work, names=names, rounds=given.rounds)
    if not given.no_memory:
        arguments = [
            f"--size={given.size or ('7b' if alternate.on_gpu() else 'cpu')}",
            f"--batches={plan.batches}",
            f"--pairs-per-batch={plan.pairs_per_batch}",
            f"--pairs-per-clip={plan.pairs_per_clip}",
        ]
        memory = peaks(names, arguments)
        for row in found["rows"]:
            row["peak_gb"] = memory[row["contender"]] / 1e9
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
