"""Paired differences against plain loops and closed forms; McNemar against all outcomes."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ltu_jax.evaluation.metrics import bootstrap as drawing
from ltu_jax.evaluation.metrics.bootstrap import bootstrap, ratio
from ltu_jax.evaluation.metrics.significance import (
    ENOUGH,
    mcnemar,
    paired_bootstrap,
    paired_samples,
)


def _with_ones(right):
    return np.stack([right, np.ones(len(right))], axis=1)


@pytest.fixture
def paired():
    generator = np.random.default_rng(5)
    hard = generator.random(240)
    a, b = (_with_ones(generator.random(240) + shift > hard) for shift in (0.25, 0.1))
    return a, b, [f"clip{index}" for index in generator.integers(0, 60, size=240)]


def test_value_is_first_minus_second(paired):
    a, b, clusters = paired
    difference = paired_bootstrap(a, b, clusters, ratio, resamples=50)
    assert difference.value == pytest.approx(a[:, 0].mean() - b[:, 0].mean(), abs=1e-12)


def test_difference_equals_a_loop_over_resampled_clips(paired):
    a, b, clusters = paired
    difference = paired_bootstrap(a, b, clusters, ratio, resamples=4000)
    generator = np.random.default_rng(11)
    members = {name: [i for i, own in enumerate(clusters) if own == name] for name in clusters}
    names = sorted(members)
    values = []
    for _ in range(4000):
        rows = [row for name in generator.choice(names, size=len(names)) for row in members[name]]
        values.append(a[rows, 0].mean() - b[rows, 0].mean())
    low, high = np.percentile(values, (2.5, 97.5))
    # Monte-Carlo quantiles of 4,000 draws each: their own error is near 0.003.
    assert difference.low == pytest.approx(low, abs=0.012)
    assert difference.high == pytest.approx(high, abs=0.012)


def test_draws_are_those_of_the_single_figure(paired, monkeypatch):
    a, _, clusters = paired
    nothing = np.stack([np.zeros(len(a)), np.ones(len(a))], axis=1)
    alone = bootstrap(a, clusters=clusters, statistic=ratio, resamples=700)
    monkeypatch.setattr(drawing, "_CELLS", 60 * 64)  # drawn and used in parts of 64 resamples
    drawing._draws.cache_clear()
    against = paired_bootstrap(a, nothing, clusters, ratio, resamples=700)
    assert (against.low, against.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_a_figure_of_all_samples_is_resampled_in_pairs(paired):
    """The mean, written as a figure that needs all samples: as `paired_bootstrap` has it."""
    a, b, clusters = paired

    def mean(counts, weights):
        return weights @ counts[:, 0] / (weights @ counts[:, 1])

    here = np.ones((1, len(a)))
    found = paired_samples(a[None], b[None], here, here, clusters, mean, resamples=2_000)
    truth = paired_bootstrap(a, b, clusters, ratio, resamples=2_000)
    assert found.value == pytest.approx(truth.value, abs=1e-12)
    # Its bounds are moved by the mean of the resamples less the value, which is noise for a mean.
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=3e-3)
    assert found.p == pytest.approx(truth.p, abs=5e-3)


def test_draws_are_averaged_and_what_a_rule_leaves_out_has_no_weight(paired):
    a, b, clusters = paired

    def mean(counts, weights):
        return weights @ counts[:, 0] / (weights @ counts[:, 1])

    draws, here = np.stack([a, 1 - a + 0 * b]), np.ones((2, len(a)))
    draws[..., 1] = 1
    here[0, :100] = 0
    found = paired_samples(draws, b[None], here, here[1:], clusters, mean)
    expected = (a[100:, 0].mean() + (1 - a[:, 0]).mean()) / 2 - b[:, 0].mean()
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.low < found.value < found.high


def test_the_interval_is_that_of_a_paired_t_test():
    generator = np.random.default_rng(2)
    hard = generator.normal(0, 5, size=400)
    a, b = (hard + generator.normal(mean, 1, size=400) for mean in (0.15, 0.0))
    difference = paired_bootstrap(_with_ones(a), _with_ones(b), [str(i) for i in range(400)], ratio)
    truth = stats.ttest_rel(a, b)
    low, high = truth.confidence_interval(0.95)
    assert difference.low == pytest.approx(low, abs=0.01)
    assert difference.high == pytest.approx(high, abs=0.01)
    assert difference.p == pytest.approx(truth.pvalue, abs=0.02)


def test_p_below_one_in_twenty_where_the_interval_leaves_out_zero():
    generator = np.random.default_rng(8)
    clusters = [str(i) for i in range(80)]
    sides = set()
    for shift in np.linspace(0, 0.3, 12):
        a, b = (_with_ones(generator.random(80) < 0.5 + more) for more in (shift, 0.0))
        difference = paired_bootstrap(a, b, clusters, ratio, resamples=999)
        apart = difference.low > 0 or difference.high < 0
        sides.add(apart)
        if abs(difference.p - 0.05) > 0.01:  # at the edge, quantiles are interpolated
            assert (difference.p < 0.05) == apart
    assert sides == {True, False}


def test_a_system_does_not_differ_from_itself(paired):
    a, _, clusters = paired
    difference = paired_bootstrap(a, a, clusters, ratio, resamples=100)
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_a_clear_difference_has_the_smallest_p_that_the_resamples_can_tell():
    a, b = _with_ones(np.ones(30)), _with_ones(np.zeros(30))
    difference = paired_bootstrap(a, b, [str(i) for i in range(30)], ratio, resamples=999)
    assert difference.p == pytest.approx(1 / 1000)  # the random exchanges and the one at hand
    assert (difference.value, difference.low, difference.high) == (1, 1, 1)


@pytest.mark.parametrize("clusters", [1, 2, 3, 5, 6, 9])
def test_p_of_few_clusters_is_that_of_all_ways_to_exchange_the_systems(clusters):
    generator = np.random.default_rng(clusters)
    size, names = 4 * clusters, [str(place % clusters) for place in range(4 * clusters)]
    a, b = (_with_ones(generator.random(size) < share) for share in (0.8, 0.4))
    b[:, 1] = 2  # a figure that is no plain difference of sums
    found = paired_bootstrap(a, b, names, ratio, resamples=50)
    apart = []
    for signs in itertools.product((False, True), repeat=clusters):
        swap = np.array([signs[int(name)] for name in names])[:, None]
        one, other = np.where(swap, b, a).sum(axis=0), np.where(swap, a, b).sum(axis=0)
        apart.append(abs(one[0] / one[1] - other[0] / other[1]))
    assert found.p == pytest.approx(np.mean(np.array(apart) >= apart[0] - 1e-12), abs=1e-12)
    assert found.clusters == clusters
    assert found.p >= 2 / 2**clusters or clusters == 1

    def share(counts, weights):
        return weights @ counts[:, 0] / (weights @ counts[:, 1])

    here = np.ones((1, size))
    ranked = paired_samples(a[None], b[None], here, here, names, share, resamples=20)
    assert ranked.p == pytest.approx(found.p, abs=0.08 if clusters > 8 else 1e-12)


def test_too_few_clusters_are_those_of_which_no_test_finds_a_difference():
    for clusters in range(2, 9):
        names = [str(place) for place in range(clusters)]
        clear = _with_ones(np.ones(clusters)), _with_ones(np.zeros(clusters))
        p = paired_bootstrap(*clear, names, ratio, resamples=20).p
        assert p == 2 / 2**clusters
        assert (p < 0.05) == (clusters >= ENOUGH)


def test_the_sign_flips_of_many_clusters_are_those_of_scipy():
    generator = np.random.default_rng(3)
    a, b = (generator.random(40) < share for share in (0.75, 0.5))
    names = [str(place) for place in range(40)]
    found = paired_bootstrap(_with_ones(a), _with_ones(b), names, ratio, resamples=20_000)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, abs=0.01)


def test_dialogs_of_many_turns_give_no_more_false_alarms_than_promised():
    generator = np.random.default_rng(9)
    alarms, trials = 0, 200
    names = [str(place // 40) for place in range(40 * 20)]
    for _ in range(trials):  # both systems alike; a dialog is easy or hard for each as a whole
        a, b = (
            np.repeat(generator.random(20), 40) > generator.random(len(names)) for _ in range(2)
        )
        found = paired_bootstrap(_with_ones(a), _with_ones(b), names, ratio, resamples=400)
        alarms += found.p < 0.05
    assert alarms / trials < 0.1  # McNemar's test has more than half


def test_figure_of_several_draws_is_their_mean(paired):
    a, b, clusters = paired
    draws = np.stack([a, b, b])
    difference = paired_bootstrap(draws, b, clusters, ratio, resamples=800)
    alone = paired_bootstrap(a, b, clusters, ratio, resamples=800)
    for name in ("value", "low", "high"):
        assert getattr(difference, name) == pytest.approx(getattr(alone, name) / 3, abs=1e-12)


def test_a_figure_that_is_undefined_has_no_difference():
    dropped = np.zeros((4, 2))  # a rule that leaves out every item: 0 / 0
    difference = paired_bootstrap(dropped, np.ones((4, 2)), list("abcd"), ratio, resamples=20)
    assert np.isnan([difference.value, difference.low, difference.high, difference.p]).all()


def test_resamples_without_a_figure_are_left_out():
    counts = np.array([[3.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # two items of three are left out
    difference = paired_bootstrap(counts, np.ones((3, 2)), list("abc"), ratio, resamples=200)
    assert (difference.value, difference.low, difference.high) == (2, 2, 2)


@pytest.mark.parametrize("items", [0, 3])
def test_counts_of_other_items_are_refused(items):
    with pytest.raises(ValueError, match=f"counts of {items} items and 2 clusters"):
        paired_bootstrap(np.ones((items, 2)), np.ones((2, 2)), ["a", "b"], ratio)


def test_mcnemar_equals_the_count_over_all_outcomes():
    for only_a, only_b in itertools.product(range(6), repeat=2):
        a = [True] * only_a + [False] * only_b + [True, False]
        b = [False] * only_a + [True] * only_b + [True, False]
        n = only_a + only_b
        extreme = sum(
            min(sum(coins), n - sum(coins)) <= min(only_a, only_b)
            for coins in itertools.product((0, 1), repeat=n)
        )
        assert mcnemar(a, b) == pytest.approx(extreme / 2**n, abs=1e-15)


def test_mcnemar_equals_the_binomial_test_of_scipy():
    generator = np.random.default_rng(4)
    for _ in range(300):
        n = int(generator.integers(1, 3000))
        a, b = (generator.random(n) < generator.uniform(0.3, 0.7) for _ in range(2))
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        truth = stats.binomtest(only_a, max(only_a + only_b, 1)).pvalue if only_a + only_b else 1.0
        # scipy's own tail has an error near 1e-11 relative at these sizes.
        assert mcnemar(a, b) == pytest.approx(truth, rel=1e-8, abs=1e-300)


def test_mcnemar_refuses_verdicts_of_other_items():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        mcnemar([True, False], [True, False, True])
