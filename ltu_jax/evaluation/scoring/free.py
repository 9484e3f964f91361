"""Free answers: a judge's score, similarity to the reference, and how many decline."""

from collections.abc import Sequence

import numpy as np

from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import strict
from ltu_jax.evaluation.scoring.interface import (
    Answered,
    AnswerScore,
    Metric,
    NotComputedError,
    ScoringRule,
    Status,
    Tools,
)
from ltu_jax.evaluation.scoring.shared import (
    by_embedder,
    dropped,
    embedder_of,
    named,
    one_by_one,
    vectors,
)


def _scored(answered: Answered, score: float, status: Status) -> AnswerScore:
    return AnswerScore(parsed=answered.output, status=status, value=score, counts=(score, 1.0))


def _declines(answered: Answered) -> bool:
    """Tell whether the answer declines where the reference does not."""
    return strict.refused(answered.output) and not strict.refused(answered.item.label)


def _status(answered: Answered) -> Status:
    return strict.status(
        answered.output, parsed=bool(answered.output.strip()) and not _declines(answered)
    )


def _judged(answers: Sequence[Answered], tools: Tools) -> list[float | None]:
    if tools.judge is None:
        raise NotComputedError(
            "judge score needs a judge: name any OpenAI-compatible endpoint with --judge"
        )
    if not answers:
        return []
    triples = [
        (answered.item.question, answered.item.label, answered.output) for answered in answers
    ]
    return list(tools.judge(triples))


def official_judge(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score by the judge: missing answers and replies without a score drop."""
    given = [answered for answered in answers if answered.output is not None]
    replies = iter(_judged(given, tools))
    scores = []
    for answered in answers:
        score = None if answered.output is None else next(replies)
        if score is None:
            status = Status.MISSING if answered.output is None else Status.UNPARSED
            scores.append(dropped(status))
        else:
            scores.append(_scored(answered, score, _status(answered)))
    return scores


def unguessed_judge(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score all items by the judge; missing, declined and unscored answers are worth 0."""
    given = [
        answered for answered in answers if answered.output is not None and not _declines(answered)
    ]
    replies = iter(_judged(given, tools))
    scores = []
    for answered in answers:
        status, score = strict.status(answered.output, parsed=False), 0.0
        if answered.output is not None and not _declines(answered):
            reply = next(replies)
            if reply is not None:
                status, score = Status.PARSED, reply
        scores.append(_scored(answered, score, status))
    return scores


def _similarity(
    answers: Sequence[Answered], tools: Tools, *, keep_missing: bool
) -> list[AnswerScore]:
    embedder = embedder_of(tools, purpose="embedding similarity")
    given = [answered for answered in answers if answered.output is not None]
    both = vectors(
        embedder,
        [answered.output for answered in given] + [answered.item.label for answered in given],
    )
    cosines = iter(np.sum(both[: len(given)] * both[len(given) :], axis=-1).tolist())
    missing = AnswerScore(parsed=None, status=Status.MISSING, value=0.0, counts=(0.0, 1.0))
    if not keep_missing:
        missing = dropped(Status.MISSING)
    return [
        missing if answered.output is None else _scored(answered, next(cosines), _status(answered))
        for answered in answers
    ]


def official_similarity(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score the cosine of answer and reference, over the answers that were given."""
    return _similarity(answers, tools, keep_missing=False)


def unguessed_similarity(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score the cosine of answer and reference; a missing answer has 0."""
    return _similarity(answers, tools, keep_missing=True)


def given_refusal(answered: Answered) -> AnswerScore:
    """Score 1 where a given answer has a phrase of `strict.REFUSALS`."""
    if answered.output is None:
        return dropped(Status.MISSING)
    return _scored(answered, float(strict.refused(answered.output)), _status(answered))


def any_refusal(answered: Answered) -> AnswerScore:
    """Do as `given_refusal`; an answer that is missing or blank was refused, too."""
    if answered.output is None:
        return _scored(answered, 1.0, Status.MISSING)
    declined = strict.refused(answered.output) or not answered.output.strip()
    return _scored(answered, float(declined), _status(answered))


def _judge_name(tools: Tools) -> str:
    return f"judge score ({tools.judge.name})" if tools.judge else "judge score"


JUDGE_SCORE = Metric(
    name="judge score",
    paper=ScoringRule(describe=_judge_name, grade=official_judge, statistic=ratio),
    strict=ScoringRule(describe=_judge_name, grade=unguessed_judge, statistic=ratio),
    higher=True,
)
SIMILARITY = Metric(
    name="embedding similarity",
    paper=ScoringRule(
        describe=by_embedder("embedding similarity"), grade=official_similarity, statistic=ratio
    ),
    strict=ScoringRule(
        describe=by_embedder("embedding similarity"), grade=unguessed_similarity, statistic=ratio
    ),
    higher=True,
)
REFUSAL_RATE = Metric(
    name="refusal rate",
    paper=ScoringRule(
        describe=named("refusal rate"), grade=one_by_one(given_refusal), statistic=ratio
    ),
    strict=ScoringRule(
        describe=named("refusal rate"), grade=one_by_one(any_refusal), statistic=ratio
    ),
    higher=False,
)
