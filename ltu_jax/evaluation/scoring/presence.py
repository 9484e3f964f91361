"""Whether a sound is there: yes or no, as the answer says it; and whether there is none at all."""

from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import strict
from ltu_jax.evaluation.scoring.interface import Answered, AnswerScore, Metric, ScoringRule
from ltu_jax.evaluation.scoring.reading.yes_no import NO, YES
from ltu_jax.evaluation.scoring.shared import checked_label, named, one_by_one, right_or_wrong
from ltu_jax.evaluation.scoring.sound_groups import named_groups

YES_OR_NO = (YES, NO)
QUIET = "quiet"


def affirmed_or_denied(answered: Answered) -> AnswerScore:
    """Score an answer by the one of "yes" and "no" that it says; neither and both are wrong.

    The item's references are "yes" or "no", and behind it the names of what is asked about.
    """
    label, said = checked_label(answered.item, YES_OR_NO), None
    if answered.output is not None:
        said = strict.yes_or_no(answered.output, answered.item.references[1:])
    return right_or_wrong(
        said,
        right=said == label,
        status=strict.status(answered.output, parsed=said is not None),
    )


def nothing_invented(answered: Answered) -> AnswerScore:
    """Score an answer about silence or noise: right where it says so and names nothing else."""
    output = answered.output or ""
    quiet = strict.says_quiet(output)
    said = QUIET if quiet else "; ".join(named_groups(output)) or None
    return right_or_wrong(
        said, right=quiet, status=strict.status(answered.output, parsed=said is not None)
    )


def presence_metrics() -> tuple[Metric, ...]:
    """Return accuracy over questions of yes or no. No paper has it, so both readings are ours."""
    rule = ScoringRule(
        describe=named("accuracy (yes or no said)"),
        grade=one_by_one(affirmed_or_denied),
        statistic=ratio,
    )
    return (Metric(name="accuracy", paper=rule, strict=rule, higher=True),)


def quiet_metrics() -> tuple[Metric, ...]:
    """Return the share of silence and noise that is called so. Both readings are ours."""
    rule = ScoringRule(
        describe=named("nothing invented"), grade=one_by_one(nothing_invented), statistic=ratio
    )
    return (Metric(name="nothing invented", paper=rule, strict=rule, higher=True),)
