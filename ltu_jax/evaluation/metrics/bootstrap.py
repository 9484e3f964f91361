"""Percentile bootstrap over clusters, of summed counts wherever a metric is a function of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import beta

# Sums of per-sample counts [..., S] -> the metric [...]; works on all resamples at once.
Statistic = Callable[[np.ndarray], np.ndarray]
# Counts [n, S] and weights [..., n] of the samples -> the metric [...].
SampleStatistic = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Resamples of a metric that ranks all samples in which are computed at once: bounds the memory.
AT_ONCE = 100
_CELLS = 1 << 23  # weights of clusters held as float64 at once: 64 MiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure, the bounds of its 95 % interval, and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """The mean figure of several draws, its 95 % interval, and their standard deviation."""

    value: float
    low: float
    high: float
    spread: float | None


def ratio(sums: np.ndarray) -> np.ndarray:
    """Divide the first sum by the second: accuracy of (right, 1), word errors of (edits, words)."""
    return sums[..., 0] / sums[..., 1]


def bootstrap(
    counts: np.ndarray,
    *,
    clusters: Sequence[str],
    statistic: Statistic,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the statistic of all samples and its 95 % interval, resampling whole clusters.

    Questions about one clip share its difficulty, so clips are drawn, not questions. A resample
    without a figure (a rate of no words at all) is left out of the percentiles.

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
    draws = bootstrap_draws(
        counts[None], clusters=clusters, statistic=statistic, resamples=resamples, seed=seed
    )
    return Interval(value=draws.value, low=draws.low, high=draws.high, n=len(counts))


def bootstrap_draws(
    counts: np.ndarray,
    *,
    clusters: Sequence[str],
    statistic: Statistic,
    resamples: int = 10_000,
    seed: int = 0,
) -> Draws:
    """Return the mean statistic of several answers to each sample, with its interval.

    A resample has the same clusters in every draw, so the interval is that of the mean.

    Args:
        counts: [draws, n, S] float or int.
        clusters: the clip of each sample.
        statistic: sums [..., S] -> metric [...].
        resamples: number of resamples.
        seed: of the resamples.

    Raises:
        ValueError: there is no sample, or counts and clusters differ in length.
    """
    counts = np.asarray(counts, dtype=np.float64)
    place, names = places(counts.shape[1], clusters)
    sums = np.zeros((names, len(counts), counts.shape[2]))
    np.add.at(sums, place, counts.swapaxes(0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [float(statistic(draw.sum(axis=0))) for draw in counts]
        resampled = np.concatenate(
            [
                statistic(np.tensordot(part, sums, axes=1)).mean(axis=-1)
                for part in weights(names, resamples=resamples, seed=seed)
            ]
        )
    low, high = _bounds(resampled)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Draws(value=float(np.mean(values)), low=low, high=high, spread=spread)


def bootstrap_samples(
    counts: np.ndarray,
    *,
    clusters: Sequence[str],
    statistic: SampleStatistic,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Return a metric of all samples at once, with its interval: a resample is a weight of each.

    Such a metric costs a pass over the samples in each resample, so there are fewer of them: with
    1,000 the bounds themselves are uncertain by about a tenth of the interval's half width.

    A sample that is drawn twice shares its rank with itself, which lifts average precision in every
    resample; percentiles of a poor ranking can lie above its own value. The bounds are therefore
    the percentiles less that lift: the mean of the resamples minus the value.

    Args:
        counts: [n, S] float or int, what the statistic knows of each sample.
        clusters: the clip of each sample.
        statistic: counts [n, S], weights [..., n] -> metric [...].
        resamples: number of draws.
        seed: of the draws; the same counts give the same interval.

    Raises:
        ValueError: there is no sample, or counts and clusters differ in length.
    """
    counts = np.asarray(counts, dtype=np.float64)
    place, names = places(len(counts), clusters)
    values = [
        np.atleast_1d(statistic(counts, part[:, place]))
        for part in weights(names, resamples=resamples, seed=seed, most=AT_ONCE * names)
    ]
    value = float(statistic(counts, np.ones(len(counts))))
    resampled = np.concatenate(values)
    bias = np.nanmean(resampled) - value if np.isfinite(resampled).any() else np.nan
    low, high = _bounds(resampled - bias)
    return Interval(value=value, low=low, high=high, n=len(counts))


def binomial(share: float, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of so many trials (Clopper and Pearson 1934)."""
    hits = share * trials
    low = beta.ppf(0.025, hits, trials - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def weights(
    clusters: int, *, resamples: int, seed: int, most: int | None = None
) -> Iterator[np.ndarray]:
    """Yield how often each resample holds each cluster, float64 [some resamples, clusters].

    A part has at most `most` cells, those of 64 MiB if None.
    """
    draws = _draws(clusters, resamples, seed)
    step = max(1, (_CELLS if most is None else most) // clusters)
    for start in range(0, resamples, step):
        yield draws[start : start + step].astype(np.float64)


# All figures of a row resample the same clusters, which costs more to draw than to use.
@functools.lru_cache(maxsize=1)
def _draws(clusters: int, resamples: int, seed: int) -> np.ndarray:
    """Draw [resamples, clusters] uint16: with 20,000 clusters 0.4 GB, a quarter of int64."""
    generator = np.random.default_rng(seed)
    share = np.full(clusters, 1 / clusters)
    drawn = np.empty((resamples, clusters), np.uint16)
    step = max(1, _CELLS // clusters)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn[start : start + size] = generator.multinomial(clusters, share, size=size)
    return drawn


def places(samples: int, clusters: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the cluster's number of each sample [n], and the number of clusters."""
    if samples == 0 or samples != len(clusters):
        raise ValueError(
            f"bootstrap got {samples} rows of counts and {len(clusters)} clusters: "
            "give at least one sample and one cluster name for each"
        )
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    return place, len(names)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (2.5, 97.5)) if len(values) else (np.nan, np.nan)
    return float(low), float(high)
