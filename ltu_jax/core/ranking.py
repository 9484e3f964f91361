"""Average precision of rankings, as scikit-learn's `average_precision_score` defines it."""

import numpy as np

from ltu_jax.core.axes import Float


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the average precision of one ranking; nan where nothing is true.

    Args:
        scores: [n], higher is ranked first; equal scores share a rank.
        truth: [n], 1 or 0.
    """
    precision, _ = _weighted(scores, truth, np.ones((len(scores), 1)))
    return float(precision[0])


def mean_average_precision(
    counts: Float[np.ndarray, "n two_labels"], weights: np.ndarray, *, absent_as_zero: bool = False
) -> np.ndarray:
    """Return the mean over the labels of their average precision over all samples.

    A label that no sample of positive weight has is left out, or counted as 0 (`absent_as_zero`) as
    scikit-learn's macro average and the official script do; nan where none has a sample.

    Args:
        counts: [n, 2 * labels]: the score of each label, then its truth, 1 or 0.
        weights: [..., n], how much each sample counts; the figure has the shape [...].
    """
    labels = counts.shape[1] // 2
    columns = weights.reshape(-1, counts.shape[0]).T
    total, having = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    for label in range(labels):
        precision, present = _weighted(counts[:, label], counts[:, labels + label], columns)
        total += np.where(present, precision, 0.0)
        having += present
    of = np.full_like(having, labels) if absent_as_zero else having
    mean = np.divide(total, of, out=np.full_like(total, np.nan), where=having > 0)
    return mean.reshape(weights.shape[:-1])


def _weighted(
    scores: np.ndarray, truth: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision [R] and whether anything true has weight [R], for weights [n, R]."""
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order] > 0
    if not truth.any():
        return np.full(columns.shape[1], np.nan), np.zeros(columns.shape[1], dtype=bool)
    # Recall only rises at ranks that hold something true, so all between two of those is one block.
    rank = np.cumsum(np.r_[True, scores[1:] != scores[:-1]])
    bearing = np.unique(rank[truth])
    block = np.searchsorted(bearing, rank)
    starts = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
    seen = np.cumsum(np.add.reduceat(columns[order], starts, axis=0), axis=0)[: len(bearing)]
    hits = np.add.reduceat(
        columns[order[truth]], np.searchsorted(block[truth], range(len(bearing))), axis=0
    )
    precision = np.divide(np.cumsum(hits, axis=0), seen, out=np.zeros_like(seen), where=seen > 0)
    positives = hits.sum(axis=0)
    present = positives > 0
    summed = (hits * precision).sum(axis=0)
    return np.divide(summed, positives, out=np.full_like(summed, np.nan), where=present), present
