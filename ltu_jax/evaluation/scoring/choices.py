"""Multiple choice: accuracy by the official string rules, or by the one option that is named."""

import enum
from collections.abc import Callable

from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import paper, strict
from ltu_jax.evaluation.scoring.interface import Answered, AnswerScore, Metric, ScoringRule, Status
from ltu_jax.evaluation.scoring.shared import (
    checked_label,
    dropped,
    named,
    one_by_one,
    right_or_wrong,
)


class Official(enum.StrEnum):
    """Whose official rule is the `paper` score of a multiple-choice row."""

    MMAU = "mmau"
    AIR_BENCH = "air_bench"


def mmau(answered: Answered) -> AnswerScore:
    """Score by MMAU's word match; an item without output is skipped from the denominator."""
    item, label = answered.item, checked_label(answered.item, answered.item.choices)
    if answered.output is None:
        return dropped(Status.MISSING)
    fits = [
        choice for choice in item.choices if paper.mmau_match(choice, answered.output, item.choices)
    ]
    return right_or_wrong(
        fits[0] if len(fits) == 1 else None,
        right=paper.mmau_match(label, answered.output, item.choices),
        status=strict.status(answered.output, parsed=bool(fits)),
    )


def air_bench(answered: Answered) -> AnswerScore:
    """Score by AIR-Bench's letter; an answer without one, missing or not, is left out."""
    item, label = answered.item, checked_label(answered.item, answered.item.choices)
    letter = paper.air_bench_letter(answered.output or "")
    if letter is None:
        return dropped(strict.status(answered.output, parsed=False))
    place = "ABCD".index(letter)
    return right_or_wrong(
        item.choices[place] if place < len(item.choices) else None,
        right=place == item.choices.index(label),
        status=Status.PARSED,
    )


def unguessed(answered: Answered) -> AnswerScore:
    """Score exactly one option, by letter or text; everything else is wrong."""
    item, label = answered.item, checked_label(answered.item, answered.item.choices)
    guess = None if answered.output is None else strict.option(answered.output, item.choices)
    return right_or_wrong(
        guess,
        right=guess == label,
        status=strict.status(answered.output, parsed=guess is not None),
    )


_OFFICIAL: dict[Official, Callable[[Answered], AnswerScore]] = {
    Official.MMAU: mmau,
    Official.AIR_BENCH: air_bench,
}


def choice_metrics(official: Official) -> tuple[Metric, ...]:
    """Return accuracy, by the official rule of one benchmark and by ours."""
    return (
        Metric(
            name="accuracy",
            paper=ScoringRule(
                describe=named("accuracy"),
                grade=one_by_one(_OFFICIAL[official]),
                statistic=ratio,
            ),
            strict=ScoringRule(
                describe=named("accuracy"), grade=one_by_one(unguessed), statistic=ratio
            ),
            higher=True,
        ),
    )
