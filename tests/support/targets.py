"""Labels of a batch of the input pipeline, which yields the targets among them."""

import numpy as np

from ltu_jax.models.text_batch import TARGET_IDS, TARGET_POSITIONS, with_targets
from ltu_jax.preprocessing.text import IGNORE


def with_labels(batch):
    """Put "labels" [B, T] in place of targets; the first of a row, which nothing predicts, -100."""
    rest = {n: leaf for n, leaf in batch.items() if n not in (TARGET_IDS, TARGET_POSITIONS)}
    labels = np.full(batch["input_ids"].shape, IGNORE, np.int32)
    positions, ids = batch[TARGET_POSITIONS], batch[TARGET_IDS]
    for row, places in enumerate(ids != IGNORE):
        labels[row, positions[row][places] + 1] = ids[row][places]
    return {**rest, "labels": labels}


def dense_targets(batch):
    """Take every position but the last as one that may predict a target."""
    return with_targets(batch, most=batch["labels"].shape[1] - 1)
