"""Tests of two systems on the same items: sign flips, intervals, McNemar's test."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ltu_jax.evaluation.metrics.bootstrap import (
    AT_ONCE,
    SampleStatistic,
    Statistic,
    places,
    weights,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """First figure minus second, its 95 % interval, and the two-sided p of no difference.

    All four are NaN where one of the two figures is undefined (a paper rule that drops every item);
    p alone where the two cannot be exchanged (unlike numbers of draws). `clusters` is how many were
    resampled: of fewer than `ENOUGH` no test finds p below 0.05, and an interval says little.
    """

    value: float
    low: float
    high: float
    p: float
    clusters: int


# 2 / 2**5 is above 0.05.
ENOUGH = 6
_ALL_FLIPS = 12  # clusters up to which all ways to exchange the systems are tried
_SAME = 1e-9  # relative: below it, differences are rounding


def paired_bootstrap(
    counts_a: np.ndarray,
    counts_b: np.ndarray,
    clusters: Sequence[str],
    statistic: Statistic,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of two figures of the same items, resampling whole clusters.

    What makes an item hard is hard for both systems and cancels, so the interval is that of the
    difference, not of two figures apart. p is that of a sign-flip test: the share of all ways to
    exchange the two systems within clusters that part the figures at least as far. Up to 12
    clusters it is exact; beyond, `resamples` random ways are tried, and the one at hand counts
    with them, so it is never 0. Resamples for which a figure is undefined are left out.

    Args:
        counts_a, counts_b: [n, S], what each item adds to the sums; or [D, n, S], the same for
            several draws of the answers, whose figures are averaged. D may differ.
        clusters: the clip or speaker of each item.
        statistic: sums [..., S] -> figure [...].
        resamples: number of draws.
        seed: of the draws, which are those of `bootstrap` for these clusters and seed.

    Raises:
        ValueError: there is no item, or the counts and clusters are not of the same items.
    """
    tables = [_draws(counts) for counts in (counts_a, counts_b)]
    for table in tables:
        if len(clusters) == 0 or table.shape[1] != len(clusters):
            raise ValueError(
                f"paired_bootstrap got counts of {table.shape[1]} items and {len(clusters)} "
                "clusters: give at least one item, the same ones for both, and a cluster for each"
            )
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = [_by_cluster(table, place, len(names)) for table in tables]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.subtract(*(statistic(own.sum(axis=1)).mean() for own in sums))
        differences = np.concatenate(
            [
                np.subtract(
                    *(np.mean([statistic(part @ draw) for draw in own], axis=0) for own in sums)
                )
                for part in weights(len(names), resamples=resamples, seed=seed)
            ]
        )
    p = np.nan
    if len(sums[0]) == len(sums[1]):
        p = _sign_flips(sums, statistic, resamples=resamples, seed=seed)
    return _difference(float(value), differences, p=p, clusters=len(names))


def _sign_flips(
    sums: Sequence[np.ndarray], statistic: Statistic, *, resamples: int, seed: int
) -> float:
    """Return the two-sided p of an exchange of two systems' sums [D, K, S] within clusters."""
    draws, clusters, width = sums[0].shape
    change = (sums[1] - sums[0]).swapaxes(0, 1).reshape(clusters, -1)
    totals = [own.sum(axis=1) for own in sums]
    observed = _apart(totals, statistic)
    if not np.isfinite(observed):
        return np.nan
    samples = []
    for flips in _flips(clusters, resamples=resamples, seed=seed):
        moved = (flips @ change).reshape(len(flips), draws, width)
        samples.append(_apart((totals[0] + moved, totals[1] - moved), statistic))
    return _share(np.concatenate(samples), observed, exact=clusters <= _ALL_FLIPS)


def _apart(totals: Sequence[np.ndarray], statistic: Statistic) -> np.ndarray:
    """Return how far two systems' mean figures lie apart, from sums [..., D, S]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(np.subtract(*(statistic(own).mean(axis=-1) for own in totals)))


def _flips(clusters: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield which clusters are exchanged, 1 or 0 [part, clusters]: all ways, or random ones."""
    if clusters <= _ALL_FLIPS:
        yield (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    step = max(1, (1 << 22) // clusters)
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), clusters)
        yield generator.integers(0, 2, size=size).astype(np.float64)


def _share(samples: np.ndarray, observed: float, *, exact: bool) -> float:
    """Return the share of differences no smaller than the observed one, which is among them."""
    samples = samples[np.isfinite(samples)]
    far = np.count_nonzero(samples >= observed * (1 - _SAME) - np.finfo(float).eps * 8)
    return far / len(samples) if exact else (far + 1) / (len(samples) + 1)


def paired_samples(
    counts_a: np.ndarray,
    counts_b: np.ndarray,
    present_a: np.ndarray,
    present_b: np.ndarray,
    clusters: Sequence[str],
    statistic: SampleStatistic,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Difference:
    """Do as `paired_bootstrap` for a figure of all samples at once (see `bootstrap_samples`).

    What ties lift in every resample is taken off there, and so it is here. Above 100 clusters p is
    read from the resamples: to rank all samples anew for each exchange would take hours.

    Args:
        counts_a, counts_b: [D, n, S], what the statistic knows of each item in each draw.
        present_a, present_b: [D, n], 1, or 0 for an item that a rule leaves out.
        clusters: the clip or speaker of each item.
        statistic: counts [n, S], weights [..., n] -> figure [...].
        resamples: number of draws; each costs a pass over the items.
        seed: of the draws.

    Raises:
        ValueError: there is no item, or the counts and clusters are not of the same items.
    """
    sides = [(counts_a, present_a), (counts_b, present_b)]
    place, names = places(counts_a.shape[1], clusters)
    value = np.subtract(
        *(
            np.mean([statistic(draw, here) for draw, here in zip(*side, strict=True)])
            for side in sides
        )
    )
    differences = []
    for part in weights(names, resamples=resamples, seed=seed, most=AT_ONCE * names):
        drawn = part[:, place]
        differences.append(
            np.subtract(
                *(
                    np.mean(
                        [statistic(d, drawn * here) for d, here in zip(*system, strict=True)], 0
                    )
                    for system in sides
                )
            )
        )
    samples = np.concatenate(differences)
    lift = np.mean(samples[np.isfinite(samples)]) - value if np.isfinite(samples).any() else np.nan
    p = np.nan
    if names > _MANY:
        p = _share_beyond_zero(samples - lift)
    elif len(sides[0][0]) == len(sides[1][0]):
        p = _exchanged_samples(sides, place, names, statistic, seed=seed)
    return _difference(float(value), samples - lift, p=p, clusters=names)


_MANY = 100  # clusters above which the resamples at hand tell p as well
_RANKINGS = 400  # ways to exchange systems whose figure costs a pass over all samples


def _share_beyond_zero(resampled: np.ndarray) -> float:
    """Return twice the smaller share of resampled differences at or beyond zero.

    Each side counts one more (Davison and Hinkley 1997, section 4.2.1): never 0.
    """
    resampled = resampled[np.isfinite(resampled)]
    tail = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return min(1.0, 2 * (tail + 1) / (len(resampled) + 1))


def _exchanged_samples(
    sides: Sequence[Sequence[np.ndarray]],
    place: np.ndarray,
    clusters: int,
    statistic: SampleStatistic,
    *,
    seed: int,
) -> float:
    """Do as `_sign_flips` for a figure of all samples: each way ranks them anew."""

    def apart(flip: np.ndarray) -> float:
        swap = flip[place] > 0
        values = []
        for first, second in ((0, 1), (1, 0)):
            counts, present = (
                np.where(swap[None, :, None] if part.ndim == 3 else swap[None], other, part)
                for part, other in zip(sides[first], sides[second], strict=True)
            )
            values.append(
                np.mean([float(statistic(d, w)) for d, w in zip(counts, present, strict=True)])
            )
        return abs(values[0] - values[1])

    observed = apart(np.zeros(clusters))
    if not np.isfinite(observed):
        return np.nan
    exact = 2**clusters <= _RANKINGS
    most = 2**clusters if exact else _RANKINGS - 1
    samples = []
    for flips in _flips(clusters, resamples=most, seed=seed):
        samples += [apart(flip) for flip in flips[:: 1 if exact else max(1, len(flips) // most)]]
    return _share(np.array(samples), observed, exact=exact)


def mcnemar(right_a: Sequence[bool], right_b: Sequence[bool]) -> float:
    """Return McNemar's exact two-sided p that two systems are right equally often.

    Only items that one of them gets right count: under no difference each falls to either side like
    a fair coin, so p is twice the smaller binomial tail, at most 1, and 1 without such items.

    Raises:
        ValueError: the two are not of the same items.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"mcnemar got answers of shapes {a.shape} and {b.shape}: give one per item, both alike"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    ways = tail = 1  # n over k, and its sum up to k: integers, so exact for any n
    for k in range(1, min(only_a, only_b) + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def _difference(value: float, resampled: np.ndarray, *, p: float, clusters: int) -> Difference:
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(resampled) == 0:
        return Difference(value=np.nan, low=np.nan, high=np.nan, p=np.nan, clusters=clusters)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Difference(value=value, low=float(low), high=float(high), p=float(p), clusters=clusters)


def _draws(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    return counts[None] if counts.ndim == 2 else counts


def _by_cluster(counts: np.ndarray, place: np.ndarray, clusters: int) -> np.ndarray:
    """Sum counts [D, n, S] to [D, clusters, S]."""
    sums = np.zeros((len(counts), clusters, counts.shape[2]))
    for own, draw in zip(sums, counts, strict=True):
        np.add.at(own, place, draw)
    return sums
