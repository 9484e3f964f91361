"""Average precision against scikit-learn, with ties, weights and labels that nothing has."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ltu_jax.core.ranking import average_precision, mean_average_precision


def test_average_precision_equals_scikit_learn():
    generator = np.random.default_rng(0)
    for _ in range(200):
        size = int(generator.integers(1, 40))
        scores = generator.integers(0, 8, size=size) / 8  # many ties
        truth = generator.integers(0, 2, size=size)
        truth[generator.integers(size)] = 1
        theirs = average_precision_score(truth, scores)
        assert average_precision(scores, truth) == pytest.approx(theirs, rel=1e-12)


def test_nothing_true_has_no_average_precision():
    assert np.isnan(average_precision(np.array([0.5, 0.1]), np.array([0, 0])))


def test_weighted_mean_equals_scikit_learn_for_every_weighting_at_once():
    generator = np.random.default_rng(1)
    for _ in range(200):
        size, labels = int(generator.integers(2, 30)), 4
        scores = generator.normal(size=(size, labels)).round(1)
        truth = generator.integers(0, 2, size=(size, labels))
        weights = generator.integers(0, 3, size=(3, size)).astype(float)
        ours = mean_average_precision(np.concatenate([scores, truth], axis=1), weights)
        assert ours.shape == (3,)
        for own, weight in zip(ours, weights, strict=True):
            drawn = [
                average_precision_score(truth[:, k], scores[:, k], sample_weight=weight)
                for k in range(labels)
                if (truth[:, k] * weight).sum() > 0
            ]
            expected = np.mean(drawn) if drawn else np.nan
            assert own == pytest.approx(expected, rel=1e-10, nan_ok=True)


def test_one_weighting_gives_one_figure():
    counts = np.array([[0.9, 0.1, 1, 0], [0.2, 0.8, 0, 0]])
    figure = mean_average_precision(counts, np.ones(2))
    assert figure.shape == ()
    assert figure == 1


def test_an_absent_label_counts_as_nothing_where_the_official_script_says_so():
    scores, truth = np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]])
    counts = np.concatenate([scores, truth], axis=1)
    with pytest.warns(UserWarning, match="No positive class"):
        theirs = average_precision_score(truth, scores, average="macro")
    assert mean_average_precision(counts, np.ones(2), absent_as_zero=True) == theirs == 0.5
    assert mean_average_precision(counts, np.ones(2)) == 1
