"""Classes in free sentences: nearest label by text embedding (official), or the one named."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.core.ranking import average_precision, mean_average_precision
from ltu_jax.evaluation.metrics import scripts, words
from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import paper, strict
from ltu_jax.evaluation.scoring.interface import (
    Answered,
    AnswerScore,
    Metric,
    ScoringRule,
    Status,
    Tools,
)
from ltu_jax.evaluation.scoring.shared import (
    by_embedder,
    checked_label,
    dropped,
    embedder_of,
    named,
    one_by_one,
    right_or_wrong,
    vectors,
)

# The words of a joint answer count as right up to this word error rate against Whisper's
# transcript: the model can copy no better than what it reads in the Input block.
QUOTE_TOLERANCE = 0.3


def classification_metrics(
    *, label_text: str = "{}", part: paper.Part = paper.Part.WHOLE, comma: str = ", "
) -> tuple[Metric, ...]:
    """Return accuracy over single labels.

    Args:
        label_text: what the official script embeds for a label, with "{}" for its name; a part of
            an answer gets the same frame.
        part: which part of the answer it embeds.
        comma: what it embeds for ", " in a label.

    Raises:
        ValueError: `label_text` has no or several "{}".
    """
    _check_frame(label_text)

    def official(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
        return _nearest(answers, tools, frame=label_text, part=part, comma=comma)

    return (
        Metric(
            name="accuracy",
            paper=ScoringRule(describe=by_embedder("accuracy"), grade=official, statistic=ratio),
            strict=ScoringRule(
                describe=named("accuracy (label named)"),
                grade=one_by_one(_named_label),
                statistic=ratio,
            ),
            higher=True,
        ),
    )


def multilabel_metrics(
    *, label_text: str = "{}", part: paper.Part = paper.Part.WHOLE
) -> tuple[Metric, ...]:
    """Return mean average precision over all labels.

    Arguments and errors are those of `classification_metrics`.

    The score of one answer is the average precision of its own labels in its own ranking.
    """
    _check_frame(label_text)

    def official(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
        given = [answered for answered in answers if answered.output is not None]
        choices = _common_choices(answers)
        texts = [
            paper.embedded_answer(answered.output, part=part, frame=label_text)
            for answered in given
        ]
        rows = _similarities(given, texts, tools, frame=label_text)
        scores = []
        for answered in answers:
            if answered.output is None:
                scores.append(dropped(Status.MISSING))
                continue
            similarities = next(rows)
            top = choices[int(np.argmax(similarities))]
            scores.append(_ranked(answered, similarities, parsed=top, status=Status.PARSED))
        return scores

    def unguessed(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
        choices = _common_choices(answers)
        scores = []
        for answered in answers:
            classes = strict.named_classes(answered.output or "", choices)
            scores.append(
                _ranked(
                    answered,
                    np.array([float(choice in classes) for choice in choices]),
                    parsed="; ".join(classes) or None,
                    status=strict.status(answered.output, parsed=bool(classes)),
                )
            )
        return scores

    return (
        Metric(
            name="mAP",
            paper=ScoringRule(
                describe=by_embedder("mAP"),
                grade=official,
                of_samples=functools.partial(mean_average_precision, absent_as_zero=True),
            ),
            strict=ScoringRule(
                describe=named("mAP (labels named)"),
                grade=unguessed,
                of_samples=mean_average_precision,
            ),
            higher=True,
        ),
    )


def _check_frame(label_text: str) -> None:
    if label_text.count("{}") != 1 or set("{}") & set(label_text.replace("{}", "")):
        raise ValueError(f"label_text is {label_text!r}: give text with one '{{}}' for the label")


def _similarities(
    answers: Sequence[Answered],
    texts: Sequence[str],
    tools: Tools,
    *,
    frame: str,
    comma: str = ", ",
) -> Iterator[np.ndarray]:
    """Yield the cosine of each answer's text to each of its item's choices, in a frame."""
    embedder = embedder_of(tools, purpose="the official label match")
    labels: dict[tuple[str, ...], np.ndarray] = {}
    for answered, answer_words in zip(answers, vectors(embedder, texts), strict=True):
        choices = answered.item.choices
        if choices not in labels:
            framed = [paper.embedded_label(choice, frame=frame, comma=comma) for choice in choices]
            labels[choices] = vectors(embedder, framed)
        yield labels[choices] @ answer_words


def _nearest(
    answers: Sequence[Answered], tools: Tools, *, frame: str, part: paper.Part, comma: str
) -> list[AnswerScore]:
    given = [answered for answered in answers if answered.output is not None]
    texts = [paper.embedded_answer(answered.output, part=part, frame=frame) for answered in given]
    rows = _similarities(given, texts, tools, frame=frame, comma=comma)
    scores = []
    for answered in answers:
        label = checked_label(answered.item, answered.item.choices)
        if answered.output is None:
            scores.append(dropped(Status.MISSING))
            continue
        guess = answered.item.choices[int(np.argmax(next(rows)))]
        scores.append(right_or_wrong(guess, right=guess == label, status=Status.PARSED))
    return scores


def _named_label(answered: Answered) -> AnswerScore:
    label = checked_label(answered.item, answered.item.choices)
    guess = strict.named_class(answered.output or "", answered.item.choices)
    return right_or_wrong(
        guess,
        right=guess == label,
        status=strict.status(answered.output, parsed=guess is not None),
    )


def _common_choices(answers: Sequence[Answered]) -> tuple[str, ...]:
    for given in answers:
        if given.item.choices != answers[0].item.choices:
            raise UserError(
                f"item {given.item.item_id!r} has other choices than {answers[0].item.item_id!r}: "
                "mAP ranks all items of a row for each label, so give all of them the same labels"
            )
    return answers[0].item.choices if answers else ()


def _ranked(
    answered: Answered, ranking: np.ndarray, *, parsed: str | None, status: Status
) -> AnswerScore:
    unknown = [name for name in answered.item.references if name not in answered.item.choices]
    if unknown:
        raise UserError(
            f"item {answered.item.item_id!r}: the label {unknown[0]!r} is not among its choices: "
            "correct the references or the choices"
        )
    truth = np.array(
        [float(choice in answered.item.references) for choice in answered.item.choices]
    )
    return AnswerScore(
        parsed=parsed,
        status=status,
        value=average_precision(ranking, truth),
        counts=(*ranking.tolist(), *truth.tolist()),
    )


def _quoting(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    english = scripts.english([answered.spoken_text for answered in answers])
    return [_quoted(answered, english=english) for answered in answers]


def _quoted(answered: Answered, *, english: bool) -> AnswerScore:
    """Score the sound named outside the spoken text, and the words within tolerance."""
    label = checked_label(answered.item, answered.item.choices)
    around = words.around_words(answered.output or "")
    guess = strict.named_class(around, answered.item.choices)
    return right_or_wrong(
        guess,
        right=guess == label and words_quoted(answered, english=english),
        status=strict.status(answered.output, parsed=guess is not None),
    )


def words_quoted(answered: Answered, *, english: bool) -> bool:
    """Tell whether an answer has the words of Whisper's transcript within `QUOTE_TOLERANCE`."""
    edits, count = words.word_error_counts(
        answered.spoken_text, words.spoken_words(answered.output or ""), english=english
    )
    return edits <= QUOTE_TOLERANCE * count


def _officially_quoted(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score the label nearest to what stands around the words, and the words, officially.

    There is no official rule for both in one answer: this is its two rules at once. Whisper's
    transcript is the reference here, so it replaces nothing.
    """
    given = [answered for answered in answers if answered.output is not None]
    texts = [words.around_words(answered.output) for answered in given]
    rows = _similarities(given, texts, tools, frame="{}")
    scores = []
    for answered in answers:
        label = checked_label(answered.item, answered.item.choices)
        if answered.output is None:
            scores.append(dropped(Status.MISSING))
            continue
        guess = answered.item.choices[int(np.argmax(next(rows)))]
        expected = paper.librispeech_words(answered.spoken_text).split()
        answer_words = paper.librispeech_words(words.spoken_words(answered.output)).split()
        words_right = words.word_errors(expected, answer_words) <= QUOTE_TOLERANCE * len(expected)
        scores.append(
            right_or_wrong(guess, right=guess == label and words_right, status=Status.PARSED)
        )
    return scores


BOTH_RIGHT = Metric(
    name="both right",
    paper=ScoringRule(
        describe=by_embedder("both right"), grade=_officially_quoted, statistic=ratio
    ),
    strict=ScoringRule(describe=named("both right"), grade=_quoting, statistic=ratio),
    higher=True,
)
