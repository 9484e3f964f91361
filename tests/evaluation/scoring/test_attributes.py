"""Gender and age of whole rows against scikit-learn and plain means; missing and unread answers."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_absolute_error

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.scoring.attributes import MACRO_F1, MAE
from ltu_jax.evaluation.scoring.interface import Status, Tools

WORDS = {"female": "She is female.", "male": "A male voice.", None: "Hard to say."}


def test_macro_f1_equals_scikit_learn_in_both_rules(answer, figure):
    generator = np.random.default_rng(0)
    for _ in range(200):
        size = int(generator.integers(1, 30))
        truth = generator.choice(["female", "male"], size=size).tolist()
        said = generator.choice(["female", "male", None], size=size).tolist()
        answers = [answer(WORDS[b], a) for a, b in zip(truth, said, strict=True)]
        official = f1_score(truth, [guess or "male" for guess in said], average="macro")
        assert figure(MACRO_F1.paper, answers) == pytest.approx(official, rel=1e-12)
        seen = sorted(set(truth) | set(said) - {None})
        unguessed = f1_score(
            truth, [guess or "none" for guess in said], labels=seen, average="macro"
        )
        assert figure(MACRO_F1.strict, answers) == pytest.approx(unguessed, rel=1e-12)


def test_a_missing_gender_is_dropped_officially_and_a_miss_in_strict(answer):
    answers = [answer(None, "female")]
    assert MACRO_F1.paper.grade(answers, Tools())[0].counts == ()
    strict = MACRO_F1.strict.grade(answers, Tools())[0]
    assert (strict.value, strict.status) == (0, Status.MISSING)
    assert strict.counts == (0, 0, 1, 0, 0, 0)


def test_an_unclear_gender_is_male_officially_and_unparsed_in_strict(answer):
    answers = [answer("I cannot tell.", "male")]
    official = MACRO_F1.paper.grade(answers, Tools())[0]
    assert (official.parsed, official.value, official.status) == ("male", 1, Status.PARSED)
    strict = MACRO_F1.strict.grade(answers, Tools())[0]
    assert (strict.parsed, strict.value, strict.status) == (None, 0, Status.REFUSED)


def test_a_reference_must_be_a_gender(answer):
    for output in ("male", None):
        for rule in (MACRO_F1.paper, MACRO_F1.strict):
            with pytest.raises(UserError, match="'m' is not among"):
                rule.grade([answer(output, "m")], Tools())


def test_mean_absolute_error_equals_scikit_learn(answer, figure):
    generator = np.random.default_rng(1)
    for _ in range(200):
        truth = generator.integers(0, 101, size=10)
        said = generator.integers(0, 101, size=10)
        answers = [answer(f"The speaker is {b}.", str(a)) for a, b in zip(truth, said, strict=True)]
        theirs = mean_absolute_error(truth, said)
        assert figure(MAE.paper, answers) == pytest.approx(theirs, rel=1e-12)
        assert figure(MAE.strict, answers) == pytest.approx(theirs, rel=1e-12)


def test_unread_ages_are_dropped_officially_and_charged_in_strict(answer, figure):
    answers = [
        answer("30", "35"),
        answer("in his 30s", "35"),
        answer("I cannot say.", "70"),
        answer(None, "20"),
    ]
    assert figure(MAE.paper, answers) == 5
    assert figure(MAE.strict, answers) == pytest.approx((5 + 65 + 70 + 80) / 4)
    statuses = [Status.PARSED, Status.UNPARSED, Status.REFUSED, Status.MISSING]
    for rule in (MAE.paper, MAE.strict):
        assert [one.status for one in rule.grade(answers, Tools())] == statuses
    assert [one.counts == () for one in MAE.paper.grade(answers, Tools())] == [False] + [True] * 3


def test_a_leading_other_number_wins_officially_and_is_charged_in_strict(answer, figure):
    answers = [answer("Of 2 speakers, 35", "35")]
    assert figure(MAE.paper, answers) == 33
    assert figure(MAE.strict, answers) == 65


def test_a_decimal_age_is_cut_officially_and_kept_in_strict(answer, figure):
    answers = [answer("27.5", "30")]
    assert figure(MAE.paper, answers) == 3
    assert figure(MAE.strict, answers) == 2.5


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_beyond_floats_is_left_out_officially(digits, answer):
    assert MAE.paper.grade([answer("9" * digits, "30")], Tools())[0].counts == ()


@pytest.mark.parametrize("label", ["thirty", "-1", "nan", ""])
def test_a_reference_must_be_an_age(label, answer):
    with pytest.raises(UserError, match="give years in digits"):
        MAE.strict.grade([answer("30", label)], Tools())
