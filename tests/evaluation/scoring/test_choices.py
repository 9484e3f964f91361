"""Multiple choice: MMAU's and AIR-Bench's official rules over rows, and the strict one."""

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.scoring.interface import Status, Tools
from ltu_jax.evaluation.scoring.task_metrics import METRICS, Official, choice_metrics

OPTIONS = ("Man", "Woman", "Child", "Robot")
(MMAU,) = METRICS[Task.CHOICE]
(AIR_BENCH,) = choice_metrics(Official.AIR_BENCH)


def test_an_item_without_output_is_skipped_by_mmau_and_wrong_in_strict(answer, figure):
    answers = [answer("Woman", "Woman", choices=OPTIONS), answer(None, "Man", choices=OPTIONS)]
    assert figure(MMAU.paper, answers) == 1
    assert figure(MMAU.strict, answers) == 0.5
    assert [one.status for one in MMAU.paper.grade(answers, Tools())] == [
        Status.PARSED,
        Status.MISSING,
    ]


def test_a_letter_alone_is_wrong_for_mmau_and_right_in_strict(answer, figure):
    answers = [answer("(B)", "Woman", choices=OPTIONS)]
    assert figure(MMAU.paper, answers) == 0
    assert figure(MMAU.strict, answers) == 1


def test_a_contradicted_letter_is_right_for_mmau_and_wrong_in_strict(answer, figure):
    answers = [answer("(A) Woman", "Woman", choices=OPTIONS)]
    assert figure(MMAU.paper, answers) == 1
    assert figure(MMAU.strict, answers) == 0


def test_an_answer_without_a_letter_is_left_out_by_air_bench_and_wrong_in_strict(answer, figure):
    answers = [
        answer("B. Woman", "Woman", choices=OPTIONS),
        answer("I cannot tell", "Man", choices=OPTIONS),
        answer(None, "Man", choices=OPTIONS),
    ]
    assert figure(AIR_BENCH.paper, answers) == 1
    assert figure(AIR_BENCH.strict, answers) == pytest.approx(1 / 3)
    statuses = [Status.PARSED, Status.REFUSED, Status.MISSING]
    for rule in (AIR_BENCH.paper, AIR_BENCH.strict):
        assert [one.status for one in rule.grade(answers, Tools())] == statuses


def test_a_word_that_begins_like_a_letter_counts_for_air_bench_only(answer, figure):
    answers = [answer("Chilly play", "Child", choices=OPTIONS)]
    assert figure(AIR_BENCH.paper, answers) == 1
    assert figure(AIR_BENCH.strict, answers) == 0


def test_a_letter_beyond_the_options_is_wrong(answer):
    score = AIR_BENCH.paper.grade([answer("D", "yes", choices=("yes", "no"))], Tools())[0]
    assert (score.parsed, score.counts) == (None, (0, 1))


@pytest.mark.parametrize("metric", [MMAU, AIR_BENCH])
def test_a_reference_must_be_an_option(metric, answer):
    for rule in (metric.paper, metric.strict):
        with pytest.raises(UserError, match="'Dog' is not among"):
            rule.grade([answer("A", "Dog", choices=OPTIONS)], Tools())
