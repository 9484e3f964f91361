"""Step time, memory and products of each memory and speed option, at a size for a CPU.

    python -m benchmarks.options [--rounds 7] [--out benchmarks/results/options_cpu.json]

One training step (stage 3: projection, TLTR and LoRA) of a small LTU-AS on grouped rows; each row
of the table changes one option of the first. Steps alternate between the options, so that what
else the machine does falls on all of them. Memory is the compiler's: arguments and temporaries of
the step; products are counted in the program, scans times their length.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import alternate
from configs import common
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.core.sharding import MeshConfig, make_mesh, param_shardings
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TARGET_IDS, with_targets
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.planning.traced import jaxpr_flops
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.optimizer import OptimizerConfig, make_optimizer
from ltu_jax.training.state import create_state, split_trainable, state_shardings
from ltu_jax.training.step import make_train_step

MODEL = LTUASConfig(
    tltr=TLTRConfig(d_model=128, time_heads=1, layer_heads=8),
    llama=LlamaConfig(
        vocab_size=16384,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        rope_scaling=None,
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
    audio_layers=8,
    audio_tokens=25,
)
ROWS, PAIRS, PAIR_TOKENS, ANSWER = 4, 3, 64, 24  # tokens of a pair, and of them of its answer
OPTIMIZER = OptimizerConfig(
    **common.base("stage3", recipe="").optimizer.to_dict()
    | {"schedule": "constant", "warmup_steps": 0}
)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row of the table: what differs from the defaults of the step."""

    remat: str = "none"
    attention: str = "xla"
    base: str = "float32"
    chunk: int = 0
    accumulation: int = 1
    gathered: bool = True  # the head runs at target positions only
    answers: bool = False  # the loss is on answers alone


OPTIONS = {
    "plain": Option(),
    "remat full": Option(remat="full"),
    "remat lora": Option(remat="lora"),
    "remat lora_offload": Option(remat="lora_offload"),
    "attention dot_product": Option(attention="dot_product"),
    "attention blocks": Option(attention="blocks"),
    "base bfloat16": Option(base="bfloat16"),
    "base int8": Option(base="int8"),
    "loss chunk 32": Option(chunk=32),
    "loss chunk 32, remat lora": Option(chunk=32, remat="lora"),
    "accumulation 2": Option(accumulation=2),
    "answers, head at all positions": Option(answers=True, gathered=False),
    "answers, head at targets": Option(answers=True),
}


def batch_of(option: Option) -> dict[str, np.ndarray]:
    """Draw grouped rows: `PAIRS` pairs about a clip, positions restarting behind its audio."""
    rng = np.random.default_rng(0)
    tokens, audio = PAIRS * PAIR_TOKENS, MODEL.audio_tokens
    ids = rng.integers(3, MODEL.llama.vocab_size, (ROWS, tokens)).astype(np.int32)
    within = np.tile(np.arange(PAIR_TOKENS), PAIRS)
    first = PAIR_TOKENS - ANSWER if option.answers else 1
    labels = np.where(within >= first, ids, IGNORE)
    positions = np.concatenate([np.arange(audio), audio + within])
    sound = (ROWS, MODEL.audio_layers, audio, MODEL.tltr.d_model)
    batch = {
        "features": rng.standard_normal(sound, dtype=np.float32),
        "input_ids": ids,
        "labels": labels.astype(np.int32),
        "segment_ids": np.tile(np.repeat(np.arange(PAIRS) + 1, PAIR_TOKENS), (ROWS, 1)),
        "positions": np.tile(positions, (ROWS, 1)),
    }
    batch = {name: leaf.astype(np.int32) if leaf.dtype == int else leaf
             for name, leaf in batch.items()}  # fmt: skip
    return with_targets(batch, most=0 if option.gathered else batch["labels"].shape[1] - 1)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A compiled step that is run by calling `run`, and what is known of it without running."""

    run: Callable[[], float]
    facts: Mapping[str, Any]


def contender(option: Option) -> Contender:
    """Compile the step of one option."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    model = LTUAS.functional(
        MODEL,
        remat=option.remat,
        attention=option.attention,
        longest_pair=PAIR_TOKENS,
        int8_base=option.base == "int8",
    )
    params = jax.jit(model.init)(jax.random.key(0))
    trainable, frozen = split_trainable(params, common.PROJECTION_TLTR_LORA)
    if option.base == "bfloat16":
        frozen = {path: leaf.astype("bfloat16") for path, leaf in frozen.items()}
    frozen = jax.device_put(frozen, param_shardings(mesh, frozen))
    tx = make_optimizer(OPTIMIZER, paths=trainable, steps=1000)
    state = create_state(trainable, tx, mesh=mesh)
    loss_fn = losses.language_loss(
        model,
        features=lambda frozen, batch: batch["features"],
        chunk=option.chunk,
    )
    step = make_train_step(
        loss_fn,
        tx,
        mesh=mesh,
        shardings=(state_shardings(state, mesh=mesh), param_shardings(mesh, frozen)),
        accumulation=option.accumulation,
    )
    batch, key = jax.device_put(batch_of(option)), jax.random.key(0)
    traced = step.trace(state, frozen, batch, key)
    compiled = traced.lower().compile()
    memory = compiled.memory_analysis()
    held = [state]

    def run() -> float:
        started = time.perf_counter()
        held[0], metrics = compiled(held[0], frozen, batch, key)
        jax.block_until_ready(metrics)
        return time.perf_counter() - started

    facts = {
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "int8_bytes": sum(leaf.nbytes for leaf in frozen.values() if leaf.dtype == np.int8),
        "product_flops": jaxpr_flops(traced.jaxpr.jaxpr),
        "targets": int((np.asarray(batch[TARGET_IDS]) != IGNORE).sum()),
        "head_positions": int(batch[TARGET_IDS].size),
    }
    return Contender(run=run, facts=facts)


def measure(names: list[str], *, rounds: int) -> dict[str, Any]:
    """Compile every option, then alternate between their steps."""
    entrants = {name: contender(OPTIONS[name]) for name in names}
    for entrant in entrants.values():
        entrant.run()  # the first step after compiling is not the rule
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, entrant in entrants.items():
            seconds[name].append(entrant.run())
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "all_seconds": [round(value, 4) for value in seconds[name]],
            **entrant.facts,
        }
        for name, entrant in entrants.items()
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the results as text, times and memory also relative to the first row."""
    first = next(iter(found.values()))
    lines = [f"{'option':<34}{'s/step':>8}{'x':>7}{'temp MB':>10}{'args MB':>9}{'GFLOP':>8}"]
    for name, row in found.items():
        lines.append(
            f"{name:<34}{row['seconds']:>8.3f}{row['seconds'] / first['seconds']:>7.2f}"
            f"{row['temporary_bytes'] / 1e6:>10.1f}{row['argument_bytes'] / 1e6:>9.1f}"
            f"{row['product_flops'] / 1e9:>8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.options",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/options_cpu.json"))
    given = parser.parse_args()
    if given.rounds < 1:
        raise errors.UserError(f"--rounds is {given.rounds}; use at least 1")
    found = measure(given.only, rounds=given.rounds)
    print(table(found))
    write_json(
        given.out,
        alternate.header()
        | {
            "rows": ROWS,
            "tokens_per_row": MODEL.audio_tokens + PAIRS * PAIR_TOKENS,
            "rounds": given.rounds,
            "options": found,
        },
    )
    print(given.out)


if __name__ == "__main__":
    errors.main(main)
