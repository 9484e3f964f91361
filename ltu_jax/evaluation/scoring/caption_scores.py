"""Captions against human ones: the figures of AudioCaps and Clotho, in both readings.

paper: the caption is cut and cleaned as the official script does, references too, and answers that
were never given drop out. strict: only a lead-in such as "Audio caption:" goes; an empty or missing
answer is an empty caption, which scores 0. Both are tokenized as coco-caption does.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from ltu_jax.evaluation.metrics import captions, java, spice
from ltu_jax.evaluation.metrics.bootstrap import Statistic, ratio
from ltu_jax.evaluation.scoring.interface import (
    Answered,
    AnswerScore,
    Metric,
    NotComputedError,
    ScoringRule,
    Status,
    Tools,
)
from ltu_jax.evaluation.scoring.paper import audiocaps_clean

_SUBJECT = r"(?:(?:the|this|an?) )?(?:audio|sounds?|clip|recording)(?: (?:clip|recording))?"
# "Audio caption:", "**Caption:**", "Here is a short audio caption describing the sound:". The whole
# lead-in must be made of such words, so that a caption that speaks of captions stays.
_LEAD_IN = re.compile(
    r"[\s*_#>\"]*"
    r"(?:(?:sure|certainly|okay)[,.!:]? )?"
    r"(?:(?:here is|here's|this is) )?"
    r"(?:(?:the|an?|my) )?"
    r"(?:(?:short|brief|possible|closed?-ended|one-sentence) )*"
    r"(?:(?:audiocaps|audiocaps-style|audio|sound|clip) )*"
    r"(?:captions?|descriptions?)"
    rf"(?: (?:of|for|describing|to describe) {_SUBJECT})?"
    r"(?:,? in (?:the )?audiocaps(?:'s)? style)?"
    r"(?: (?:is|are|would be|could be|reads))?"
    r"[*_]*\s*:[\s*_]*",
    re.IGNORECASE,
)


def audiocaps_reference(text: str) -> str:
    """Return a human caption as the official evaluation of AudioCaps compares with.

    Its references stand behind "Audio caption: ", as the model's answers should, and go through the
    same cut: a colon inside the caption costs all before it.
    """
    return audiocaps_clean(f"Audio caption: {text}")


def without_lead_in(text: str) -> str:
    """Return the answer without "Audio caption:" or the like; only white space is cut besides."""
    lead_in = _LEAD_IN.match(text)
    return (text[lead_in.end() :] if lead_in else text).strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Captions:
    """Captions that are scored together, as text, and their references."""

    texts: Sequence[str]
    references: Sequence[Sequence[str]]

    def pairs(self) -> list[java.Pair]:
        """Return the tokens of every caption and of its references."""
        flat = [text for group in self.references for text in group]
        tokens = java.ptb_tokens([*self.texts, *flat])
        own, others = tokens[: len(self.texts)], iter(tokens[len(self.texts) :])
        return [
            (words, tuple(next(others) for _ in group))
            for words, group in zip(own, self.references, strict=True)
        ]


# Captions -> what each adds to the sums of the statistic.
_Counts = Callable[[_Captions, Tools], Sequence[Sequence[float]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reading:
    """One way to clean the texts, and whether an answer that was never given stays in."""

    caption: Callable[[str], str]
    reference: Callable[[str], str]
    keeps_missing: bool

    def grade(
        self, answers: Sequence[Answered], tools: Tools, *, counts: _Counts, statistic: Statistic
    ) -> list[AnswerScore]:
        """Score each answer; its value is the statistic of its own counts."""
        scored = [
            place
            for place, answered in enumerate(answers)
            if answered.output is not None or self.keeps_missing
        ]
        given = _Captions(
            texts=[self.caption(answers[place].output or "") for place in scored],
            references=[
                [self.reference(text) for text in answers[place].item.references]
                for place in scored
            ],
        )
        scores = [
            AnswerScore(parsed=None, status=Status.MISSING, value=None, counts=()) for _ in answers
        ]
        if not scored:
            return scores
        for place, text, own in zip(scored, given.texts, counts(given, tools), strict=True):
            status = Status.PARSED if text.strip() else Status.UNPARSED
            scores[place] = AnswerScore(
                parsed=text if status is Status.PARSED else None,
                status=Status.MISSING if answers[place].output is None else status,
                value=float(statistic(np.asarray(own, dtype=np.float64))),
                counts=tuple(own),
            )
        return scores


_PAPER = _Reading(caption=audiocaps_clean, reference=audiocaps_reference, keeps_missing=False)
_STRICT = _Reading(caption=without_lead_in, reference=str.strip, keeps_missing=True)


def _values(scores: Sequence[float]) -> list[tuple[float, float]]:
    """Return counts of a metric that is the mean of its values."""
    return [(float(score), 1.0) for score in scores]


def _spice(given: _Captions, tools: Tools) -> list[tuple[float, float]]:
    return _values(spice.spice_scores(given.pairs(), jars=tools.spice_jars))


def _cider_d(given: _Captions, tools: Tools) -> list[tuple[float, float]]:
    own, references = zip(*given.pairs(), strict=True)
    return _values(captions.cider_d(own, references))


def _spider(given: _Captions, tools: Tools) -> list[tuple[float, float]]:
    halves = zip(_spice(given, tools), _cider_d(given, tools), strict=True)
    return _values([(first + second) / 2 for (first, _), (second, _) in halves])


def _meteor(given: _Captions, tools: Tools) -> list[tuple[float, ...]]:
    return java.meteor_counts(given.pairs())


def _rouge_l(given: _Captions, tools: Tools) -> list[tuple[float, float]]:
    return _values([captions.rouge_l(own, references) for own, references in given.pairs()])


def _bleu(n: int) -> _Counts:
    def counts(given: _Captions, tools: Tools) -> list[tuple[float, ...]]:
        return [captions.bleu_counts(own, references, n=n) for own, references in given.pairs()]

    return counts


def _embedding_similarity(given: _Captions, tools: Tools) -> list[tuple[float, float]]:
    """Return mean cosine of a caption with each of its references; an empty caption has 0."""
    if tools.embedder is None:
        raise NotComputedError(
            "embedding similarity needs a text embedder: python -m ltu_jax.fetch all-minilm-l6-v2, "
            "or --embedder"
        )
    everything = [*given.texts, *(text for group in given.references for text in group)]
    texts = list(dict.fromkeys(text for text in everything if text.strip()))
    vectors = dict(zip(texts, tools.embedder(texts), strict=True)) if texts else {}

    def cosine(first: str, other: str) -> float:
        both = first in vectors and other in vectors
        return float(vectors[first] @ vectors[other]) if both else 0.0

    return _values(
        [
            sum(cosine(text, other) for other in group) / len(group)
            for text, group in zip(given.texts, given.references, strict=True)
        ]
    )


def _metric(
    name: str, counts: _Counts, *, statistic: Statistic = ratio, embeds: bool = False
) -> Metric:
    def describe(tools: Tools) -> str:
        return f"{name} ({tools.embedder.name})" if embeds and tools.embedder else name

    def rule(reading: _Reading) -> ScoringRule:
        def grade(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
            return reading.grade(answers, tools, counts=counts, statistic=statistic)

        return ScoringRule(describe=describe, grade=grade, statistic=statistic)

    return Metric(name=name, paper=rule(_PAPER), strict=rule(_STRICT), higher=True)


METRICS: tuple[Metric, ...] = (
    _metric("SPICE", _spice),
    _metric("CIDEr-D", _cider_d),
    _metric("SPIDEr", _spider),
    _metric("METEOR", _meteor, statistic=captions.meteor),
    _metric("ROUGE-L", _rouge_l),
    *(_metric(f"BLEU-{n}", _bleu(n), statistic=captions.bleu) for n in (1, 2, 3, 4)),
    _metric("embedding similarity", _embedding_similarity, embeds=True),
)
