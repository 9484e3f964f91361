"""Free answers: what the judge is asked, cosines against plain products, what counts as refused."""

import pytest

from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.scoring.interface import NotComputedError, Status, Tools
from ltu_jax.evaluation.scoring.task_metrics import METRICS

JUDGE, SIMILARITY, REFUSALS = METRICS[Task.OPEN]


class Strict:
    """Scores 1 for the reference itself, 0.5 for others, and has no score for "?"."""

    name = "strict"

    def __init__(self):
        self.asked = []

    def __call__(self, questions):
        self.asked += questions
        return [
            None if said == "?" else 1.0 if said == reference else 0.5
            for _, reference, said in questions
        ]


def test_the_judge_is_asked_about_given_answers_only(answer, figure):
    answers = [
        answer("a dog", "a dog", question="What barks?"),
        answer(None, "a dog"),
        answer("I cannot tell.", "a dog"),
        answer("?", "a dog"),
    ]
    judge = Strict()
    assert figure(JUDGE.paper, answers, Tools(judge=judge)) == pytest.approx(1.5 / 2)
    assert judge.asked == [
        ("What barks?", "a dog", "a dog"),
        ("What?", "a dog", "I cannot tell."),
        ("What?", "a dog", "?"),
    ]
    judge = Strict()
    assert figure(JUDGE.strict, answers, Tools(judge=judge)) == pytest.approx(1 / 4)
    assert [said for _, _, said in judge.asked] == ["a dog", "?"]
    assert [one.status for one in JUDGE.strict.grade(answers, Tools(judge=judge))] == [
        Status.PARSED,
        Status.MISSING,
        Status.REFUSED,
        Status.UNPARSED,
    ]


def test_declining_where_the_reference_declines_is_judged(answer, figure):
    answers = [answer("It cannot be determined.", "It cannot be determined.")]
    assert figure(JUDGE.strict, answers, Tools(judge=Strict())) == 1


def test_no_judge_no_score(answer):
    for rule in (JUDGE.paper, JUDGE.strict):
        with pytest.raises(NotComputedError, match="--judge"):
            rule.grade([answer("a", "b")], Tools())
    assert JUDGE.paper.describe(Tools(judge=Strict())) == "judge score (strict)"


def test_similarity_is_the_cosine_and_a_missing_answer_has_none(answer, figure, embedder):
    answers = [answer("a dog barks", "a dog"), answer(None, "a cat"), answer("", "a cat")]
    vectors = embedder(["a dog barks", "a dog"])
    cosine = vectors[0] @ vectors[1]
    tools = Tools(embedder=embedder)
    assert figure(SIMILARITY.paper, answers, tools) == pytest.approx(cosine / 2)
    assert figure(SIMILARITY.strict, answers, tools) == pytest.approx(cosine / 3)


def test_similarity_of_nothing_but_missing_answers(answer, embedder):
    (score,) = SIMILARITY.strict.grade([answer(None, "a")], Tools(embedder=embedder))
    assert (score.value, score.status) == (0, Status.MISSING)


def test_similarity_needs_an_embedder(answer):
    with pytest.raises(NotComputedError, match="python -m ltu_jax.fetch all-minilm-l6-v2"):
        SIMILARITY.paper.grade([answer("a", "b")], Tools())


def test_refusals_are_counted_and_missing_answers_are_refusals_in_strict(answer, figure):
    answers = [
        answer("A dog.", "a dog"),
        answer("I'm sorry, I can't tell.", "a dog"),
        answer(None, "a dog"),
        answer(" ", "a dog"),
    ]
    assert figure(REFUSALS.paper, answers) == pytest.approx(1 / 3)
    assert figure(REFUSALS.strict, answers) == pytest.approx(3 / 4)
    assert not REFUSALS.higher
