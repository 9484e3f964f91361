"""What the precision of the frozen encoder does to its features and to the loss of a trained model.

    python -m benchmarks.encoder_precision --run RUN [RUN ...] [--batches 40] [--out FILE]

Features of held-out clips in bfloat16 and float16 products are compared with those in float32,
layer by layer; then the losses of the same parameters over the same held-out batches, batch by
batch. RUN is a run of the mini preset (tagging or a language stage), trained with float32 features:
a model trained with the other precision would have fitted it. On a CPU the operands and results of
products are rounded as the dtype says and sums are float32, as on a TPU, in another order.

bfloat16 is fit to be the default if the loss of every RUN changes by at most 0.5 %, at the far end
of the 95 % interval of the mean of paired differences (fixed before anything was measured).
"""

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import alternate
from ltu_jax import checkpoint
from ltu_jax.core import errors
from ltu_jax.core.distributed import batch_share
from ltu_jax.core.files import write_json
from ltu_jax.models.whisper import Encoder, Whisper
from ltu_jax.training.initialize import prepare
from ltu_jax.training.stage import assemble, open_bases, open_pipeline
from ltu_jax.training.stage_config import stage_settings

LIMIT = 0.5  # per cent
EXACT, OTHERS = "float32", ("bfloat16", "float16")


def measure(run: Path, *, batches: int) -> dict[str, Any]:
    """Measure the errors of features and the differences of the loss of one run."""
    saved, metadata = checkpoint.read_metadata(run)
    config = metadata["config"]
    settings = stage_settings(config | {"data": config["data"] | {"features": "on_the_fly"}})
    stage = assemble(settings, open_bases(settings))
    prepared = prepare(stage, saved=saved)
    encoder = {
        path.removeprefix("whisper."): leaf
        for path, leaf in prepared.frozen.items()
        if path.startswith("whisper.")
    }
    features = {
        dtype: jax.jit(
            functools.partial(
                Whisper(settings.model.whisper, dtype=dtype).encoder.pure(Encoder.features), encoder
            )
        )
        for dtype in (EXACT, *OTHERS)
    }
    loss = jax.jit(lambda *given: stage.loss_fn(*given, None)[0])
    split = settings.data.validation_split
    held_out = open_pipeline(settings, stage.bases, share=batch_share(stage.mesh), split=split)
    batches = min(batches, held_out.steps_per_epoch)
    errors_of: dict[str, list[np.ndarray]] = {dtype: [] for dtype in OTHERS}
    losses: dict[str, list[float]] = {dtype: [] for dtype in features}
    for batch in held_out.batches(steps=batches):
        heard = batch.pop("log_mel")
        found = {dtype: np.asarray(make(heard), np.float32) for dtype, make in features.items()}
        for dtype, made in found.items():
            given = {**batch, "features": made}
            losses[dtype].append(float(loss(prepared.state.trainable, prepared.frozen, given)))
        for dtype in OTHERS:
            errors_of[dtype].append(_by_layer(found[dtype], found[EXACT]))
    exact = np.asarray(losses[EXACT])
    return {
        "stage": settings.stage,
        "step": int(metadata["step"]),
        "whisper": Path(settings.weights.whisper).name,
        "batches": len(exact),
        "rows": len(exact) * settings.data.rows_per_batch,
        "loss": float(exact.mean()),
        "errors": {
            dtype: _summary(np.stack(found)) for dtype, found in errors_of.items()
        },
        "loss_percent": {
            dtype: _paired(np.asarray(losses[dtype]) - exact, scale=exact.mean())
            for dtype in OTHERS
        },
    }  # fmt: skip


def _by_layer(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the RMS of the error over that of the features, for each layer [.. W A D]."""
    axes = tuple(axis for axis in range(found.ndim) if axis != found.ndim - 3)
    return np.sqrt(((found - exact) ** 2).mean(axes) / (exact**2).mean(axes))


def _summary(by_layer: np.ndarray) -> dict[str, Any]:
    means = by_layer.mean(0)
    return {
        "relative_by_layer": [round(float(value), 6) for value in means],
        "relative_worst_layer": float(means.max()),
    }


def _paired(differences: np.ndarray, *, scale: float) -> dict[str, float]:
    """Return the mean of paired differences and its 95 % interval, in per cent of `scale`."""
    mean, scale = float(differences.mean()), float(scale)
    half = 1.96 * differences.std(ddof=1) / len(differences) ** 0.5
    low, high = (100 * float(value) / scale for value in (mean - half, mean + half))
    return {"mean": 100 * float(mean) / scale, "low": low, "high": high}


def passed(runs: Mapping[str, Mapping[str, Any]], dtype: str) -> bool:
    """Tell whether a precision keeps to the limit in every run."""
    ends = [run["loss_percent"][dtype][end] for run in runs.values() for end in ("low", "high")]
    return bool(max(map(abs, ends)) <= LIMIT)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoder_precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    parser.add_argument("--batches", type=int, default=40, help="held-out batches (default 40)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/encoder_precision.json")
    )
    given = parser.parse_args()
    runs: dict[str, dict[str, Any]] = {}
    for run in given.run:
        found = measure(run, batches=given.batches)
        runs[found["stage"]] = found
        for dtype in OTHERS:
            change = found["loss_percent"][dtype]
            worst = found["errors"][dtype]["relative_worst_layer"]
            print(
                f"{found['stage']:8} {dtype:9} features {worst:.1e} (worst layer), loss "
                f"{found['loss']:.4f} {change['mean']:+.4f} % "
                f"[{change['low']:+.4f}, {change['high']:+.4f}]",
                flush=True,
            )
    verdict = passed(runs, "bfloat16")
    write_json(
        given.out,
        alternate.header()
        | {
            "what": "low precision emulated by XLA on a CPU, float32 sums",
            "limit_percent": LIMIT,
            "passed": verdict,
            "runs": runs,
        },
    )
    print(f"{'passed' if verdict else 'FAILED'} (limit {LIMIT} %): {given.out}")
    sys.exit(not verdict)


if __name__ == "__main__":
    errors.main(main)
