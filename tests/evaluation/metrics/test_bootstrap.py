"""The interval against a plain loop over resamples and against the closed form."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from ltu_jax.core.ranking import mean_average_precision
from ltu_jax.evaluation.metrics.bootstrap import binomial, bootstrap, bootstrap_samples, ratio


def test_value_is_the_metric_of_all_samples():
    counts = np.array([[1, 4], [0, 3], [2, 5]])
    interval = bootstrap(counts, clusters=["a", "b", "c"], statistic=ratio, resamples=200)
    assert interval.value == pytest.approx(3 / 12)
    assert interval.n == 3


def test_interval_equals_a_loop_over_resampled_clips():
    generator = np.random.default_rng(3)
    clusters = [f"clip{index}" for index in generator.integers(0, 30, size=90)]
    counts = np.stack([generator.integers(0, 3, size=90), np.full(90, 2)], axis=1)
    interval = bootstrap(counts, clusters=clusters, statistic=ratio, resamples=4000)

    members = {name: [i for i, own in enumerate(clusters) if own == name] for name in set(clusters)}
    names = sorted(members)
    values = []
    for _ in range(4000):
        drawn = generator.choice(names, size=len(names))
        rows = [row for name in drawn for row in members[name]]
        values.append(counts[rows, 0].sum() / counts[rows, 1].sum())
    low, high = np.percentile(values, (2.5, 97.5))
    # Both are Monte-Carlo quantiles of 4,000 draws: their own error is near 0.003 here.
    assert interval.low == pytest.approx(low, abs=0.012)
    assert interval.high == pytest.approx(high, abs=0.012)


def test_interval_of_a_proportion_equals_the_normal_approximation():
    right = np.r_[np.ones(300), np.zeros(100)]
    counts = np.stack([right, np.ones(400)], axis=1)
    interval = bootstrap(counts, clusters=[str(i) for i in range(400)], statistic=ratio)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval.low == pytest.approx(0.75 - half, abs=0.005)
    assert interval.high == pytest.approx(0.75 + half, abs=0.005)


def test_questions_about_one_clip_widen_the_interval():
    counts = np.stack([np.repeat([1, 0], 50), np.ones(100)], axis=1)
    apart = bootstrap(counts, clusters=[str(i) for i in range(100)], statistic=ratio)
    together = bootstrap(counts, clusters=[str(i // 10) for i in range(100)], statistic=ratio)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_same_seed_same_interval():
    counts = np.array([[1, 1], [0, 1], [1, 1]])
    first = bootstrap(counts, clusters=["a", "b", "c"], statistic=ratio)
    assert first == bootstrap(counts, clusters=["a", "b", "c"], statistic=ratio)


def test_no_samples_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        bootstrap(np.zeros((0, 2)), clusters=[], statistic=ratio)


def test_a_resample_without_words_is_left_out():
    counts = np.array([[1, 0], [1, 2], [0, 2]])
    interval = bootstrap(counts, clusters=["a", "b", "c"], statistic=ratio)
    assert 0 <= interval.low < interval.value < interval.high < np.inf


def weighted_ratio(counts, weights):
    return ratio(weights @ counts)


def test_weights_of_samples_give_an_interval_as_wide_as_that_of_their_sums():
    generator = np.random.default_rng(5)
    clusters = [f"clip{index}" for index in generator.integers(0, 20, size=60)]
    counts = np.stack([generator.integers(0, 3, size=60), np.full(60, 2)], axis=1)
    given = {"clusters": clusters, "resamples": 950, "seed": 4}
    sums = bootstrap(counts, statistic=ratio, **given)
    samples = bootstrap_samples(counts, statistic=weighted_ratio, **given)
    assert (samples.value, samples.n) == (sums.value, sums.n)
    assert samples.high - samples.low == pytest.approx(sums.high - sums.low, rel=1e-12)


def test_interval_of_a_ranking_equals_a_loop_over_resampled_clips():
    generator = np.random.default_rng(6)
    truth = generator.integers(0, 2, size=(80, 3))
    scores = truth + generator.normal(size=(80, 3))
    clusters = [f"clip{index:02d}" for index in generator.integers(0, 30, size=80)]
    interval = bootstrap_samples(
        np.concatenate([scores, truth], axis=1),
        clusters=clusters,
        statistic=mean_average_precision,
        resamples=1500,
    )

    members = {name: np.flatnonzero(np.array(clusters) == name) for name in set(clusters)}
    values = []
    for _ in range(1500):
        rows = np.concatenate(
            [members[name] for name in generator.choice(sorted(members), size=len(members))]
        )
        values.append(average_precision_score(truth[rows], scores[rows]))
    value = average_precision_score(truth, scores)
    low, high = np.percentile(values, (2.5, 97.5)) - (np.mean(values) - value)
    assert interval.value == pytest.approx(value, rel=1e-12)
    # Both are Monte-Carlo quantiles of 1,500 draws: their own error is near 0.005 here.
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_the_interval_of_a_poor_ranking_holds_its_value():
    generator = np.random.default_rng(7)
    truth = generator.random((400, 20)) < 0.02
    counts = np.concatenate([generator.normal(size=(400, 20)), truth], axis=1)
    names = [str(index) for index in range(400)]
    interval = bootstrap_samples(counts, clusters=names, statistic=mean_average_precision)
    assert interval.low < interval.value < interval.high


def test_samples_are_refused_as_sums_are():
    with pytest.raises(ValueError, match="at least one sample"):
        bootstrap_samples(np.zeros((2, 2)), clusters=["a"], statistic=weighted_ratio)


@pytest.mark.parametrize(("hits", "trials"), [(66, 66), (0, 66), (1, 7), (3, 3), (0, 1), (30, 64)])
def test_exact_intervals_are_those_of_scipy(hits, trials):
    truth = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert binomial(hits / trials, trials) == pytest.approx((truth.low, truth.high), abs=1e-9)
