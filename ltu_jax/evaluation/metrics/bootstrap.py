"""Percentile bootstrap over clusters, for every metric that is a function of summed counts."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

# Sums of per-sample counts [..., S] -> the metric [...]; works on all resamples at once.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure, the bounds of its 95 % interval, and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over the second: accuracy of (right, 1), word error rate of (edits, words)."""
    return sums[..., 0] / sums[..., 1]


def bootstrap(
    counts: np.ndarray,
    *,
    clusters: Sequence[str],
    statistic: Statistic,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The statistic of all samples and its 95 % percentile interval, resampling whole clusters.

    Questions about one clip share its difficulty, so clips are drawn, not questions.

    Args:
        counts: [n, S] float or int, what each sample adds to the sums.
        clusters: the clip of each sample.
        statistic: sums [..., S] -> metric [...].
        resamples: number of draws.
        seed: of the draws; the same counts give the same interval.

    Raises:
        ValueError: there is no sample, or counts and clusters differ in length.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if len(counts) == 0 or len(counts) != len(clusters):
        raise ValueError(
            f"bootstrap got {len(counts)} rows of counts and {len(clusters)} clusters: "
            "give at least one sample and one cluster name for each"
        )
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]))
    np.add.at(sums, place, counts)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    low, high = np.percentile(statistic(draws @ sums), (2.5, 97.5))
    value = statistic(counts.sum(axis=0))
    return Interval(value=float(value), low=float(low), high=float(high), n=len(counts))
