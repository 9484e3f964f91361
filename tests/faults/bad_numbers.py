"""A batch with a number that is not finite, or too large, changes no bit of what is trained."""

import jax
import numpy as np

from tests.faults.count import Count
from tests.faults.runs import Lab

_VALUES = (np.nan, np.inf, -np.inf, 1e30)  # the square of the last is not finite


def bits(tree) -> dict[str, bytes]:
    """Every leaf as bytes, by its path."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def spoil_batches(lab: Lab, *, trials: int, seed: int = 0) -> Count:
    """Put one bad number at a random place of features or targets, at a random step of the toy.

    Passes when parameters, moments and the optimiser's count keep their bits, the step counts on,
    and the metrics say that the step was skipped.
    """
    from ltu_jax.core.distributed import host_batch_to_global
    from ltu_jax.training.state import skipped_steps
    from tests.support.toy_step import batch_of, copied, make_toy

    del lab
    count, rng = Count(), np.random.default_rng(seed)
    toy = make_toy()
    state = copied(toy.state)

    def step(batch):
        placed = host_batch_to_global(batch, toy.mesh)
        return toy.step(state, {}, placed, jax.random.key(0))

    while count.tried < trials:
        for _ in range(rng.integers(3)):
            state, _ = step(batch_of(seed=int(rng.integers(1 << 30))))
        batch = batch_of(seed=int(rng.integers(1 << 30)))
        name, value = str(rng.choice(sorted(batch))), float(rng.choice(_VALUES))
        place = tuple(int(rng.integers(size)) for size in batch[name].shape)
        batch[name][place] = value
        before, skips = bits(state), skipped_steps(state)
        state, metrics = step(batch)
        after = bits(state)
        changed = {path for path in before if before[path] != after[path]}
        dropped = np.isfinite(metrics["loss"])  # by dropout, so that it never was in the loss
        if dropped:
            continue
        wrong = changed != {".step"} or metrics["skipped"] != 1
        wrong = wrong or skipped_steps(state) != skips + 1
        where = f"{value} in {name}{list(place)} changed {sorted(changed)}, {metrics['skipped']=}"
        count.add(failed=where if wrong else None)
    return count
