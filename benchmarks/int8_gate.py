"""The accuracy gate of the int8 base: what it does to a frozen model's predictions.

    python -m benchmarks.int8_gate --init-from RUN [--out FILE]

Nothing is trained: losses of separate runs differ by chance, by more than int8 could add. The same
parameters predict the same tokens with each kind of base, and the differences are paired:

- text: the base language model alone (the LoRA branch is zero) over Python's language reference,
  real English prose that every Python has, in windows of 256 tokens;
- clips: the LTU-AS of RUN over every held-out pair of its records, at the answers' tokens.

Three kinds of base: "bfloat16" and "int8", with products in bfloat16 as the stages are configured,
and "float32" with products in float32, which says how much bfloat16 itself changes.

The criterion, fixed before the first measurement. With d = (loss with int8 - loss with bfloat16) /
loss with bfloat16, and KL = the mean divergence of int8's distribution from bfloat16's in nats a
token, and 95 % bootstrap intervals over windows of text or over clips:

    passed     both intervals of d lie within +-1 %, and both upper ends of KL are at most 0.01
    FAILED     an interval of d lies wholly outside +-1 %, or a lower end of KL is above 0.01
    UNDECIDED  neither: an interval crosses a limit

The exit status is 0 when it passed.
"""

import argparse
import pydoc_data.topics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import alternate
from benchmarks.fixed_stage import FixedStage, batches_with_clips, open_fixed
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.core.trees import merge
from ltu_jax.models.text_batch import TARGET_IDS, TextBatch, with_targets
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses

LOSS_LIMIT = 1.0  # per cent
KL_LIMIT = 0.01  # nats a token
KINDS = {
    "float32": ("float32", "float32"),  # products, base
    "bfloat16": ("bfloat16", "bfloat16"),
    "int8": ("bfloat16", "int8"),
}
REFERENCE = "bfloat16"
WINDOW, WINDOWS, TEXT_ROWS, CLIP_ROWS = 256, 64, 4, 8
RESAMPLES = 10_000


def windows(tokenizer: Any) -> np.ndarray:
    """Cut windows of Python's language reference, int32 [WINDOWS, WINDOW], from all of it."""
    topics = pydoc_data.topics.topics
    ids = tokenizer.encode("\n\n".join(topics[name] for name in sorted(topics)))
    starts = np.linspace(0, len(ids) - WINDOW, WINDOWS).astype(int)
    return np.stack([np.asarray(ids[start : start + WINDOW], np.int32) for start in starts])


def text_batches(tokenizer: Any) -> Iterator[tuple[dict[str, np.ndarray], list[str]]]:
    """Yield batches of text alone: each token but the first is a target, a window a cluster."""
    everything = windows(tokenizer)
    for first in range(0, len(everything), TEXT_ROWS):
        ids = everything[first : first + TEXT_ROWS]
        batch = {
            "input_ids": ids,
            "labels": ids,
            "segment_ids": np.ones_like(ids),
            "positions": np.broadcast_to(np.arange(WINDOW, dtype=np.int32), ids.shape),
        }
        names = [f"window {first + row}" for row in range(len(ids))]
        yield with_targets(batch, most=batch["labels"].shape[1] - 1), names


def predictor(opened: FixedStage, *, lora: bool) -> Any:
    """Compile `batch -> log-probabilities float32 [B, P, V]` at the target positions."""
    model = opened.stage.model
    params = merge(opened.trainable, losses.without(opened.frozen, "whisper."))
    if not lora:
        params = {
            path: jnp.zeros_like(leaf) if path.endswith(".lora_b") else leaf
            for path, leaf in params.items()
        }

    @jax.jit
    def predict(params: Any, frozen: Any, batch: Mapping[str, Any]) -> Any:
        heard = {"features", "log_mel"} & set(batch)
        text, bound = TextBatch.of(batch), model.bind(params)
        states = bound.hidden(text, opened.stage.features(frozen, batch) if heard else None)
        picked = jnp.take_along_axis(states, text.target_positions[..., None], axis=1)
        return jax.nn.log_softmax(bound.unembed(picked).astype(jnp.float32))

    return lambda batch: predict(params, opened.frozen, batch)


@jax.jit
def sums(logps: Mapping[str, Any], targets: Any) -> dict[str, Any]:
    """Return by row targets, and for each kind summed losses and divergences."""
    valid = targets != IGNORE
    chosen = jnp.where(valid, targets, 0)[..., None]
    found = {"targets": valid.sum(-1)}
    before = logps[REFERENCE]
    for kind, logp in logps.items():
        nll = -jnp.take_along_axis(logp, chosen, axis=-1)[..., 0]
        found[f"loss {kind}"] = jnp.where(valid, nll, 0).sum(-1)
        apart = (jnp.exp(before) * (before - logp)).sum(-1)
        found[f"kl {kind}"] = jnp.where(valid, apart, 0).sum(-1)
    return found


def measure(predictors: Mapping[str, Any], batches: Any, *, what: str) -> dict[str, np.ndarray]:
    """Add up `sums` over the rows of each cluster, in the order of first sight."""
    rows: list[dict[str, float]] = []
    clusters: list[str] = []
    for number, (batch, names) in enumerate(batches):
        if number % 20 == 0:
            alternate.show(f"{what}: batch {number + 1}")
        logps = {kind: predict(batch) for kind, predict in predictors.items()}
        found = jax.device_get(sums(logps, batch[TARGET_IDS]))
        rows += [
            {key: float(value[row]) for key, value in found.items()} for row in range(len(names))
        ]
        clusters += names
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    owners = np.asarray([places[name] for name in clusters])
    return {key: np.bincount(owners, weights=[row[key] for row in rows]) for key in rows[0]}


def interval(statistic: Any, *, clusters: int) -> list[float]:
    """Return the 95 % percentile bootstrap of `statistic(counts [R, N]) -> [R]` over N clusters."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)
    return np.percentile(statistic(drawn.astype(float)), [2.5, 97.5]).tolist()


def compared(found: Mapping[str, np.ndarray], kind: str) -> dict[str, Any]:
    """Compare `kind` with the reference: d in per cent and KL, each with its interval."""
    before, after = found[f"loss {REFERENCE}"], found[f"loss {kind}"]

    def difference(counts: np.ndarray) -> np.ndarray:
        return 100 * (counts @ (after - before)) / (counts @ before)

    def divergence(counts: np.ndarray) -> np.ndarray:
        return (counts @ found[f"kl {kind}"]) / (counts @ found["targets"])

    clusters = len(before)
    whole = np.ones((1, clusters))
    return {
        "loss_percent": float(difference(whole)[0]),
        "loss_percent_interval": interval(difference, clusters=clusters),
        "kl": float(divergence(whole)[0]),
        "kl_interval": interval(divergence, clusters=clusters),
    }


def judge(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the verdict over the rows of int8, one for each kind of input."""
    verdicts = []
    for row in rows.values():
        low, high = row["loss_percent_interval"]
        least, most = row["kl_interval"]
        if low >= -LOSS_LIMIT and high <= LOSS_LIMIT and most <= KL_LIMIT:
            verdicts.append("passed")
        elif low > LOSS_LIMIT or high < -LOSS_LIMIT or least > KL_LIMIT:
            return "FAILED"
        else:
            verdicts.append("UNDECIDED")
    return "UNDECIDED" if "UNDECIDED" in verdicts else "passed"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8_gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init-from", required=True, metavar="RUN", help="a stage 3 of the demo")
    parser.add_argument("--split", default="val", help="held-out records (default val)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/int8_gate.json"))
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    given = parser.parse_args()
    opened = {}
    for kind, (products, base) in KINDS.items():
        alternate.show(f"opening {kind}")
        opened[kind] = open_fixed(
            [
                "--config=configs/stage3.py:mini",
                f"--config.init_from={given.init_from}",
                f"--config.compute.dtype={products}",
                f"--config.compute.base_dtype={base}",
                f"--config.data.rows_per_batch={CLIP_ROWS}",
                *(f"--config.{pair}" for pair in given.config),
            ]
        )
    first = opened[REFERENCE]
    inputs = {
        "text": (False, text_batches(first.stage.bases.tokenizer)),
        "clips": (True, batches_with_clips(first.rows(split=given.split))),
    }
    kinds, sizes = {}, {}
    for name, (lora, batches) in inputs.items():
        predictors = {kind: predictor(one, lora=lora) for kind, one in opened.items()}
        found = measure(predictors, batches, what=name)
        sizes[name] = {
            "clusters": len(found["targets"]),
            "targets": int(found["targets"].sum()),
            "loss": {kind: float(found[f"loss {kind}"].sum() / found["targets"].sum())
                     for kind in KINDS},
        }  # fmt: skip
        kinds[name] = {kind: compared(found, kind) for kind in KINDS if kind != REFERENCE}
    verdict = judge({name: row["int8"] for name, row in kinds.items()})
    write_json(
        given.out,
        alternate.header()
        | {
            "criterion": {"loss_percent": LOSS_LIMIT, "kl_nats_a_token": KL_LIMIT},
            "verdict": verdict,
            "measured_over": sizes,
            "from_bfloat16": kinds,
        },
    )
    rows = [
        {
            "over": name,
            "base": kind,
            "loss %": row["loss_percent"],
            "interval": "[{:+.3f}, {:+.3f}]".format(*row["loss_percent_interval"]),
            "KL, nats a token": row["kl"],
            "KL interval": "[{:.5f}, {:.5f}]".format(*row["kl_interval"]),
        }
        for name, by_kind in kinds.items()
        for kind, row in by_kind.items()
    ]
    print(alternate.table(rows))
    print(
        f"{verdict}: int8 against bfloat16; limits +-{LOSS_LIMIT} % and {KL_LIMIT} nats; "
        f"{given.out}"
    )
    sys.exit(verdict != "passed")


if __name__ == "__main__":
    errors.main(main)
