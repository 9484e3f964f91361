"""The table of metrics, and when two verdicts on one answer differ."""

import pytest

from ltu_jax.core.ranking import mean_average_precision
from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring.interface import AnswerScore, ScoringRule, Status
from ltu_jax.evaluation.scoring.shared import named
from ltu_jax.evaluation.scoring.task_metrics import METRICS, differs


def score(score):
    return AnswerScore(parsed=None, status=Status.PARSED, value=score, counts=())


def test_every_task_but_captions_has_metrics():
    assert set(METRICS) == set(Task) - {Task.CAPTION}
    assert all(METRICS.values())


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (1.0, 1.0, False),
        (1.0, 0.0, True),
        (0.5, 0.5 + 1e-7, False),
        (None, None, False),
        (None, 0.0, True),
        (0.0, None, True),
    ],
)
def test_verdicts_differ_by_score(a, b, expected):
    assert differs(score(a), score(b)) is expected


def test_a_rule_has_one_statistic():
    for given in ({}, {"statistic": ratio, "of_samples": mean_average_precision}):
        with pytest.raises(ValueError, match="either"):
            ScoringRule(describe=named("x"), grade=lambda answers, tools: [], **given)
