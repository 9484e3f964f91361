"""What grouping costs: the variance of the gradient when pairs of a batch share clips.

    python -m benchmarks.gradient_variance --init-from RUN [--clips 128] [--out FILE]

The parameters stay those of RUN (a stage 2 of `make demo`, where stage 3 starts). The gradient of
every pair of some clips of the mini corpus is computed once and kept as a random projection
(a signed sum of its entries into 65,536 buckets, which preserves inner products); then batches of
256 pairs are drawn, many times, as 256, 128, 64 or 32 clips with 1, 2, 4 or 8 pairs each, and the
gradient of each batch (one mean over its target tokens) is compared with that of all pairs.

Reported for each number of pairs a clip: the mean squared distance from the whole gradient,
divided by the latter's squared norm; the same divided by that of single pairs; and how many single
pairs would have the same variance ("worth").
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import alternate
from benchmarks.fixed_stage import FixedStage, batches_with_clips, open_fixed
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.training import losses

BATCH = 256
BUCKETS = 1 << 16
DRAWS = 4000


def projection(opened: FixedStage) -> Any:
    """Compile `batch of one pair -> (projected gradient of its summed loss, its targets)`."""
    sizes = {path: leaf.size for path, leaf in opened.trainable.items()}
    rng = np.random.default_rng(0)
    total = sum(sizes.values())
    buckets = jnp.asarray(rng.integers(0, BUCKETS, total, dtype=np.int32))
    signs = jnp.asarray(rng.integers(0, 2, total, dtype=np.int8) * 2 - 1)

    @jax.jit
    def project(trainable: Any, frozen: Any, batch: Any, buckets: Any, signs: Any) -> Any:
        count = losses.count_targets(batch)

        def summed(trainable: Any) -> Any:
            return opened.stage.loss_fn(trainable, frozen, batch, None)[0] * count

        grads = jax.grad(summed)(trainable)
        flat = jnp.concatenate([grads[path].ravel() for path in sizes])
        return jnp.zeros(BUCKETS).at[buckets].add(flat * signs), count

    return lambda batch: project(opened.trainable, opened.frozen, batch, buckets, signs)


def gradients(
    opened: FixedStage, *, split: str, clips: int, pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return projected gradients float32 [clips, pairs, BUCKETS] and target counts.

    The clips are the first, in a fixed random order, that have so many pairs; of a clip that has
    more, the pairs are drawn.
    """
    pipeline = opened.rows(split=split)
    places = defaultdict(list)
    for place in range(pipeline.rows_per_epoch):
        places[pipeline.contents(place)[0][0]].append(place)
    rng = np.random.default_rng(0)
    rich = [clip for clip in sorted(places) if len(places[clip]) >= pairs]
    if len(rich) < clips:
        raise errors.UserError(
            f"split {split!r} has {len(rich)} clips with {pairs} pairs or more, not {clips}; "
            "give fewer --clips or --pairs"
        )
    taken = {
        clip: sorted(rng.permutation(places[clip])[:pairs].tolist())
        for clip in rng.permutation(rich)[:clips].tolist()
    }
    wanted = {place: clip for clip, found in taken.items() for place in found}
    project, made = projection(opened), defaultdict(list)
    for place, (batch, _) in enumerate(batches_with_clips(pipeline)):
        if place in wanted:
            made[wanted[place]].append(jax.device_get(project(batch)))
            done = sum(map(len, made.values()))
            if done % 100 == 0:
                alternate.show(f"gradient {done} of {len(wanted)}")
    vectors = np.stack([np.stack([vector for vector, _ in made[clip]]) for clip in taken])
    counts = np.asarray([[int(count) for _, count in made[clip]] for clip in taken])
    return vectors, counts


def squared_distances(
    gram: np.ndarray, counts: np.ndarray, *, pairs_per_clip: int, rng: np.random.Generator
) -> np.ndarray:
    """Return squared distances of `DRAWS` batches' gradients from that of all pairs, float64.

    Args:
        gram: inner products of the summed gradients of all pairs [N, N], N = clips x pairs.
        counts: targets of each pair [clips, pairs].
        pairs_per_clip: pairs of a batch that share a clip.
        rng: what draws.
    """
    clips, pairs = counts.shape
    whole = np.full(counts.size, 1 / counts.sum())
    found = np.empty(DRAWS)
    for draw in range(DRAWS):
        chosen = rng.integers(0, clips, BATCH // pairs_per_clip)
        within = rng.permuted(np.tile(np.arange(pairs), (len(chosen), 1)), axis=1)
        members = (chosen[:, None] * pairs + within[:, :pairs_per_clip]).ravel()
        taken = np.bincount(members, minlength=counts.size)
        weights = taken / (taken @ counts.ravel()) - whole
        found[draw] = weights @ gram @ weights
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradient_variance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init-from", required=True, metavar="RUN")
    parser.add_argument("--split", default="train")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a clip (default 8)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/gradient_variance.json")
    )
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    given = parser.parse_args()
    opened = open_fixed(
        [
            "--config=configs/stage3.py:mini",
            f"--config.init_from={given.init_from}",
            "--config.data.layout=single",
            "--config.data.rows_per_batch=1",
            "--config.data.lengths=(64, 108)",
            *(f"--config.{pair}" for pair in given.config),
        ]
    )
    vectors, counts = gradients(opened, split=given.split, clips=given.clips, pairs=given.pairs)
    flat = vectors.reshape(-1, BUCKETS).astype(np.float64)
    gram = flat @ flat.T
    whole = np.full(counts.size, 1 / counts.sum())
    norm = whole @ gram @ whole
    rng = np.random.default_rng(0)
    rows, first = [], None
    for pairs_per_clip in [number for number in (1, 2, 4, 8) if number <= given.pairs]:
        found = squared_distances(gram, counts, pairs_per_clip=pairs_per_clip, rng=rng) / norm
        error = found.std() / np.sqrt(DRAWS)
        first = first or found.mean()
        rows.append(
            {
                "pairs a clip": pairs_per_clip,
                "clips": BATCH // pairs_per_clip,
                "variance / squared norm": float(found.mean()),
                "standard error": float(error),
                "times single": float(found.mean() / first),
                "worth, single pairs": float(BATCH * first / found.mean()),
            }
        )
    print(alternate.table(rows))
    write_json(
        given.out,
        alternate.header()
        | {
            "what": f"gradients of {BATCH} pairs about the mini corpus, parameters fixed",
            "init_from": Path(given.init_from).name,
            "clips": given.clips,
            "pairs_of_a_clip": given.pairs,
            "draws": DRAWS,
            "gradient_entries": int(sum(leaf.size for leaf in opened.trainable.values())),
            "rows": rows,
        },
    )
    print(given.out)


if __name__ == "__main__":
    errors.main(main)
