"""Spoken text: corpus word error rate against the script, or against Whisper's transcript."""

from collections.abc import Callable, Sequence

from ltu_jax.evaluation.metrics import scripts, words
from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.scoring import paper, strict
from ltu_jax.evaluation.scoring.interface import (
    Answered,
    AnswerScore,
    Metric,
    NotComputedError,
    ScoringRule,
    Status,
    Tools,
)
from ltu_jax.evaluation.scoring.shared import dropped, named


def _score(
    answer: str, edits: int, reference_words: int, *, status: Status = Status.PARSED
) -> AnswerScore:
    """Return one answer's counts; its value is its own word error rate."""
    return AnswerScore(
        parsed=answer,
        status=status,
        value=edits / max(reference_words, 1),
        counts=(float(edits), float(reference_words)),
    )


def official(answered: Answered) -> AnswerScore:
    """Score by LibriSpeech's official rule, whose script never sees a missing answer."""
    if answered.output is None:
        return dropped(Status.MISSING)
    answer = paper.substituted(
        paper.librispeech_words(answered.output), paper.librispeech_words(answered.spoken_text)
    )
    return _official(answer, answered.item.label)


def _official(answer: str, reference: str) -> AnswerScore:
    expected = paper.librispeech_words(reference).split()
    return _score(answer, words.word_errors(expected, answer.split()), len(expected))


def unguessed(answered: Answered, *, reference: str, english: bool) -> AnswerScore:
    """Score the words that the answer reports, normalised; a missing answer deletes all words."""
    answer = words.spoken_words(answered.output or "")
    declined = strict.refused(answer) and not strict.refused(reference)
    return _score(
        answer,
        *words.word_error_counts(reference, answer, english=english),
        status=strict.status(answered.output, parsed=bool(answer) and not declined),
    )


def official_versus_whisper(answered: Answered) -> AnswerScore:
    """Score officially against Whisper's transcript, which replaces nothing here."""
    if answered.output is None:
        return dropped(Status.MISSING)
    return _official(paper.librispeech_words(answered.output), answered.spoken_text)


_Reference = Callable[[Answered], str]


def _script(answered: Answered) -> str:
    return answered.item.label


def _transcript(answered: Answered) -> str:
    return answered.spoken_text


def _by_official(score: Callable[[Answered], AnswerScore]) -> Callable:
    def grade(answers: Sequence[Answered]) -> list[AnswerScore]:
        return [score(answered) for answered in answers]

    return grade


def _by_language(reference: _Reference) -> Callable:
    """Return the strict rule: one language for all references."""

    def grade(answers: Sequence[Answered]) -> list[AnswerScore]:
        english = scripts.english([reference(answered) for answered in answers])
        return [
            unguessed(answered, reference=reference(answered), english=english)
            for answered in answers
        ]

    return grade


def _qualifier(reference: _Reference) -> Callable[[Sequence[Answered]], str]:
    """Return a function that says what is counted where it is not English words."""

    def qualifier(answers: Sequence[Answered]) -> str:
        texts = [reference(answered) for answered in answers]
        qualifiers = [] if scripts.english(texts) else ["not as English"]
        qualifiers += ["characters of scripts without spaces"] if scripts.unspaced(texts) else []
        return ", ".join(qualifiers)

    return qualifier


def _grade(
    scores_of: Callable[[Sequence[Answered]], list[AnswerScore]],
) -> Callable[[Sequence[Answered], Tools], list[AnswerScore]]:
    def grade(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
        scores = scores_of(answers)
        counted = [score.counts for score in scores if score.counts]
        if counted and not any(expected for _, expected in counted):
            raise NotComputedError(
                "WER: no reference has a word, and the rate divides by their number: "
                "give references or transcripts with words"
            )
        return scores

    return grade


def _metric(name: str, by_paper: Callable, reference: _Reference) -> Metric:
    return Metric(
        name=name,
        paper=ScoringRule(
            describe=named(name), grade=_grade(_by_official(by_paper)), statistic=ratio
        ),
        strict=ScoringRule(
            describe=named(name),
            grade=_grade(_by_language(reference)),
            statistic=ratio,
            qualifier=_qualifier(reference),
        ),
        higher=False,
    )


WER = _metric("WER", official, _script)
# How well the transcript is copied or heard, whatever was spoken: for corpora with a script.
WER_VS_WHISPER = _metric("WER vs Whisper", official_versus_whisper, _transcript)
