"""What all checks of training cost, as a share of the train step: the benchmark's own step.

    python -m benchmarks.overhead [--size cpu|tiny|7b] [--rounds 30] [--out DIR]

The step (grouped rows, as in benchmarks/train_step.py) takes turns with itself without the guard
that takes a bad step back. The checks on the host are timed where they are called: those of samples
(CRC-32 of records, fields, finite numbers, tokens) while the input pipeline makes the batches of
such steps from FLAC on the fly, manifests and their hashes while a checkpoint is saved, the
checksum of the trained parameters, and the watchdog. What happens every so many steps is divided by
the default number of them. Samples and manifests are checked by threads beside the step; here all
of it is counted as if the step waited for it.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks import alternate, input_pipeline
from benchmarks.batches import CUTOFF, Work
from benchmarks.model_sizes import SIZES
from benchmarks.train_contenders import Ours, Setup, draw_work, random_params, setup
from configs import common
from data_pipelines.input import rows
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import tf_example
from ltu_jax import checkpoint
from ltu_jax.checkpoint import writer
from ltu_jax.core import errors
from ltu_jax.preprocessing.text import load_tokenizer
from ltu_jax.training.resilience import consistency, guards
from ltu_jax.training.resilience.goodput import Clock
from ltu_jax.training.resilience.watchdog import Watchdog

LIMIT = 1.0  # per cent
_DRAWS = 2000  # of the bootstrap
_BEATS = 10_000


class Stopwatch:
    """Seconds spent in functions that are timed where they are looked up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function with its time added up here."""

        def run(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin
                self.calls += 1

        return run

    @contextlib.contextmanager
    def watching(self, *places: tuple[Any, str]) -> Iterator[None]:
        """Time the functions of these names in these modules."""
        with contextlib.ExitStack() as stack:
            for module, name in places:
                timed = self.timed(getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, timed))
            yield


def without_guard(plan: Setup, params: Any, work: Work) -> Ours:
    """Compile our step without the select that takes a bad step back."""
    with mock.patch.object(guards, "take_back", lambda good, after, before: after):
        ours = Ours(plan, params)
        ours.run(work.grouped)
    return ours


def guard(plan: Setup, work: Work, *, rounds: int) -> tuple[dict[str, Any], Ours]:
    """Time the step with and without its guard, taking turns."""
    params = random_params(plan, seed=0)
    bare, ours = without_guard(plan, params, work), Ours(plan, params)
    timings = alternate.alternate(
        [
            alternate.Contender(name="step", run=lambda: ours.run(work.grouped)),
            alternate.Contender(name="step without guard", run=lambda: bare.run(work.grouped)),
        ],
        rounds=rounds,
    )
    with_it, without = (np.asarray(timing.seconds) for timing in timings.values())
    share = 100 * (with_it / without - 1)
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(share, (_DRAWS, len(share))), axis=1)
    step = statistics.median(without) / len(work.grouped)
    found = {
        "step_seconds": step,
        "guard_percent": float(np.median(share)),
        "guard_percent_95": [float(x) for x in np.percentile(drawn, (2.5, 97.5))],
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }
    return found, ours


def samples(records: Path, *, plan: Setup, steps: int) -> tuple[float, int]:
    """Return the seconds and the number of the checks of samples in one step."""
    config = DataConfig(
        records=str(records),
        split="train",
        layout="grouped",
        cutoff=CUTOFF,
        pairs_per_clip=plan.pairs_per_clip,
        clips_per_row=1,
        rows_per_batch=plan.pairs_per_batch // plan.pairs_per_clip,
        train_on="all",
        features="on_the_fly",
        seed=0,
        audio_tokens=plan.config.audio_tokens,
        n_mels=80,
    )
    pipeline = InputPipeline(config, tokenizer=load_tokenizer(input_pipeline.TOKENIZER))
    pipeline.row(0)  # imports and tables
    watch = Stopwatch()
    checks = ((zlib, "crc32"), (np, "isfinite"), (tf_example, "validate"), (rows, "check_tokens"))
    with watch.watching(*checks):
        for position in range(steps * config.rows_per_batch):
            pipeline.row(position)
    return watch.seconds / steps, watch.calls // steps


def manifest(ours: Ours, folder: Path) -> tuple[float, float]:
    """Return the seconds of a checkpoint's hashes, lists and flushes, and of the whole save."""
    adapter = ours.state.trainable

    def save() -> None:
        checkpoint.save(folder, state=ours.state, adapter=adapter, metadata={}, keep=1)

    save()
    watch, begin = Stopwatch(), time.perf_counter()
    with watch.watching((writer, "seal")):
        save()
    return watch.seconds, time.perf_counter() - begin


def comparison(ours: Ours) -> float:
    """Return the seconds of the checksum of all trained parameters on their device."""
    sums = jax.jit(
        lambda params: {path: consistency.checksum(leaf) for path, leaf in params.items()}
    )
    jax.block_until_ready(sums(ours.state.trainable))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        jax.block_until_ready(sums(ours.state.trainable))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def bookkeeping(folder: Path) -> float:
    """Return the seconds that the watchdog costs the loop in one step."""
    config = guards.GuardConfig(**common.base("stage3", recipe="").guards.to_dict())
    dog = Watchdog(
        Clock(), config=config, median=lambda: 1.0, report=folder / "stall.txt", title="overhead"
    )
    with dog:
        begin = time.perf_counter()
        for _ in range(_BEATS):
            dog.beat()
        return (time.perf_counter() - begin) / _BEATS


def measure(plan: Setup, work: Work, *, records: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Measure all shares of a step, in per cent."""
    config = common.base("stage3", recipe="")
    found, ours = guard(plan, work, rounds=rounds)
    step = found["step_seconds"]
    with tempfile.TemporaryDirectory() as scratch:
        alternate.show("checks of samples")
        of_samples, calls = samples(records, plan=plan, steps=steps)
        alternate.show("manifests")
        of_manifest, of_save = manifest(ours, Path(scratch) / "run")
        of_comparison, of_watchdog = comparison(ours), bookkeeping(Path(scratch))
    every, compare = config.checkpoint.every, config.guards.compare_every
    seconds = {
        f"samples: {calls} checks a step": of_samples,
        f"manifest of a checkpoint, every {every} steps": of_manifest / every,
        f"checksum of parameters, every {compare} steps": of_comparison / compare,
        "watchdog": of_watchdog,
    }
    table = [
        {"check": "guard in the compiled step", "seconds": step * found["guard_percent"] / 100}
    ] + [{"check": name, "seconds": value} for name, value in seconds.items()]
    for row in table:
        row["percent of a step"] = 100 * row["seconds"] / step
    total = sum(row["percent of a step"] for row in table)
    table.append({"check": "all", "seconds": total * step / 100, "percent of a step": total})
    at_most = total - found["guard_percent"] + max(0.0, found["guard_percent_95"][1])
    return found | {
        "rows": table,
        "percent": total,
        "percent_at_most_95": at_most,
        "limit_percent": LIMIT,
        "within_limit": bool(at_most < LIMIT),
        "manifest_seconds": of_manifest,
        "save_seconds": of_save,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=SIZES, default="cpu", help="of the model (default cpu)")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds (default 30)")
    parser.add_argument("--batches", type=int, default=3, help="steps in a round (default 3)")
    parser.add_argument("--clips", type=int, default=40, help="clips of the records (default 40)")
    parser.add_argument("--steps", type=int, default=20, help="steps whose samples are checked")
    parser.add_argument("--scratch", type=Path, default=Path("build/input_pipeline"))
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    input_pipeline.require_tokenizer()
    plan = setup(given.size, pairs_per_batch=None, pairs_per_clip=4, batches=given.batches)
    work = draw_work(plan, seed=0)
    records = input_pipeline.make_records(given.scratch, clips=given.clips)
    found = measure(plan, work, records=records, rounds=given.rounds, steps=given.steps)
    print(alternate.table(found["rows"]))
    low, high = found["guard_percent_95"]
    print(
        f"guard in the compiled step: {low:.2f} to {high:.2f} % (95 % interval of the median), so "
        f"all checks take at most {found['percent_at_most_95']:.2f} %"
    )
    about = {"what": "checks of training as a share of a train step", "size": given.size}
    alternate.write("overhead", about | {"dtype": plan.dtype} | found, out=given.out)


if __name__ == "__main__":
    errors.main(main)
