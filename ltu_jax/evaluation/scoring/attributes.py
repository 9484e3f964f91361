"""The speaker: gender by macro-F1, age by mean absolute error."""

import math

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.metrics import closed
from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import paper, strict
from ltu_jax.evaluation.scoring.interface import Answered, AnswerScore, Metric, ScoringRule, Status
from ltu_jax.evaluation.scoring.shared import checked_label, dropped, named, one_by_one

GENDERS = ("female", "male")


def official_gender(answered: Answered) -> AnswerScore:
    """Score as male what does not contain "female", an empty answer too; a missing one drops."""
    if answered.output is None:
        checked_label(answered.item, GENDERS)
        return dropped(Status.MISSING)
    return _gender(answered, paper.gender(answered.output))


def unguessed_gender(answered: Answered) -> AnswerScore:
    """Score one gender by its own words; anything else misses the true gender."""
    return _gender(answered, strict.gender(answered.output or ""))


def _gender(answered: Answered, guess: str | None) -> AnswerScore:
    true = checked_label(answered.item, GENDERS)
    return AnswerScore(
        parsed=guess,
        status=strict.status(answered.output, parsed=guess is not None),
        value=float(guess == true),
        counts=tuple(closed.confusion_counts([true], [guess], classes=GENDERS)[0].tolist()),
    )


def official_age(answered: Answered) -> AnswerScore:
    """Score the first number of the answer; without one the item is left out of the mean.

    So is a number of more than 300 digits (a model that repeats itself), where the official script
    stops with an OverflowError.
    """
    true, guess = _years(answered.item), _first_number(answered.output)
    if guess is None:
        return dropped(strict.status(answered.output, parsed=False))
    return _age(true, guess)


def _first_number(output: str | None) -> float | None:
    try:
        numbers = paper.age_numbers(output or "")
        return float(numbers[0]) if numbers else None
    except (OverflowError, ValueError):  # more digits than a float, or than `int` reads
        return None


def unguessed_age(answered: Answered) -> AnswerScore:
    """Score one number or range; anything else errs as far as an age of 0 to 100 could."""
    true = _years(answered.item)
    guess = None if answered.output is None else strict.age(answered.output)
    if guess is not None:
        return _age(true, guess)
    charge = strict.largest_age_error(true)
    return AnswerScore(
        parsed=None,
        status=strict.status(answered.output, parsed=False),
        value=charge,
        counts=(charge, 1.0),
    )


def _age(true: float, guess: float) -> AnswerScore:
    error = abs(true - guess)
    return AnswerScore(parsed=f"{guess:g}", status=Status.PARSED, value=error, counts=(error, 1.0))


def _years(item: Item) -> float:
    try:
        years = float(item.label)
    except ValueError:
        years = math.nan
    if not 0 <= years < math.inf:
        raise UserError(
            f"item {item.item_id!r}: the reference age is {item.label!r}: give years in digits"
        )
    return years


MACRO_F1 = Metric(
    name="macro-F1",
    paper=ScoringRule(
        describe=named("macro-F1"), grade=one_by_one(official_gender), statistic=closed.macro_f1
    ),
    strict=ScoringRule(
        describe=named("macro-F1"), grade=one_by_one(unguessed_gender), statistic=closed.macro_f1
    ),
    higher=True,
)
# In years. The official script prints it as "mse".
MAE = Metric(
    name="MAE",
    paper=ScoringRule(
        describe=named("MAE (years)"), grade=one_by_one(official_age), statistic=ratio
    ),
    strict=ScoringRule(
        describe=named("MAE (years)"), grade=one_by_one(unguessed_age), statistic=ratio
    ),
    higher=False,
)
