"""Begin a tagger's label head where its first steps would take it.

Whisper's features have a few dimensions that are large and alike in every clip, and most labels are
rare: a head that begins at random spends its first passes on both. Here the norm before the head
makes each dimension of what goes in 0 in the mean and 1 in deviation, and the head says how
frequent each label is. The parameters are those of any tagger.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.distributed import host_batch_to_global
from ltu_jax.core.sharding import batch_sharding, replicated
from ltu_jax.core.trees import Params
from ltu_jax.models.norms import LAYER_NORM_EPS
from ltu_jax.training import losses
from ltu_jax.training.stage import Stage

_LEAST = 1e-3  # deviation of a dimension


def fitted_head(stage: Stage, params: Params, *, clips: int) -> dict[str, np.ndarray]:
    """Return the parameters of a label head that is fitted to the first clips of a stage.

    Args:
        stage: of tagging.
        params: all parameters of its step; the head among them is not looked at.
        clips: how many are heard, in whole batches, at most all once.
    """
    rows = stage.settings.data.rows_per_batch
    batches = min(stage.pipeline.steps_per_epoch, math.ceil(clips / rows))

    def heard(params: Params, batch: dict[str, Any]) -> tuple[Any, Any]:
        tagger = stage.model.bind(losses.without(params, losses.WHISPER))
        pooled = tagger.tltr.pooled_first(stage.features(params, batch)).astype(jnp.float32)
        centred = pooled - pooled.mean(-1, keepdims=True)
        spread = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + LAYER_NORM_EPS)
        return centred / spread, batch["targets"]

    whole = replicated(stage.mesh)
    compute = jax.jit(
        heard,
        in_shardings=(None, batch_sharding(stage.mesh)),
        out_shardings=(whole, whole),
    )
    found = [
        tuple(map(np.asarray, compute(params, host_batch_to_global(batch, stage.mesh))))
        for batch in stage.pipeline.batches(steps=batches)
    ]
    inputs, targets = (
        np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True)
    )
    deviation = np.maximum(inputs.std(axis=0), _LEAST)
    frequency = (targets.sum(axis=0) + 0.5) / (len(targets) + 1)
    fitted = {
        "label_head.norm.scale": 1 / deviation,
        "label_head.norm.bias": -inputs.mean(axis=0) / deviation,
        "label_head.kernel": np.zeros((inputs.shape[1], targets.shape[1])),
        "label_head.bias": np.log(frequency / (1 - frequency)),
    }
    return {name: values.astype(np.float32) for name, values in fitted.items()}
