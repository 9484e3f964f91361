"""Rules: answers in, scores out, and the statistic that makes a figure of them."""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.metrics.bootstrap import SampleStatistic, Statistic

PAPER, STRICT = "paper", "strict"
RULES = (PAPER, STRICT)


class NotComputedError(Exception):
    """A figure cannot be computed here; the message says why and how to get what is missing."""


class Status(enum.StrEnum):
    """The fate of an answer: understood, not understood, declined, or never given."""

    PARSED = "parsed"
    UNPARSED = "unparsed"
    REFUSED = "refused"
    MISSING = "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """An item and one answer to it; `output` None is an answer that a system did not give.

    `spoken_text` is Whisper's transcript of the item's own clip, whatever the model was given.
    """

    item: Item
    output: str | None
    spoken_text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """The score of one answer by one rule.

    Attributes:
        parsed: the class, number or text that was read out of the answer.
        status: see `Status`.
        value: of this answer alone, for the samples file: 1 or 0, a word error rate, years off.
        counts: what it adds to the sums that the rule's statistic takes; () leaves it out, which
            only paper rules do.
    """

    parsed: str | None
    status: Status
    value: float | None
    counts: tuple[float, ...]


class Embedder(Protocol):
    """Texts to unit vectors; `name` becomes part of the metric's name."""

    name: str

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]: ...


class Judge(Protocol):
    """A model that scores free answers from 0 to 1; `name` becomes part of the metric's name."""

    name: str

    def __call__(self, questions: Sequence[tuple[str, str, str]]) -> Sequence[float | None]:
        """Return a score for each (question, reference, answer); None where the reply has none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tools:
    """Tools that rules may need; a rule that lacks one raises `NotComputedError`."""

    embedder: Embedder | None = None
    judge: Judge | None = None
    spice_jars: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringRule:
    """One way to score a metric.

    Attributes:
        describe: the figure's full name, tools included: "accuracy (all-MiniLM-L6-v2)".
        grade: answers of one row, mode and decoding -> one score each, in order.
        statistic: sums of counts [..., S] -> the figure [...].
        qualifier: what of the answers belongs into the figure's name, such as their language; "" if
            nothing.
        of_samples: counts [n, S], weights [..., n] -> the figure [...], for a figure that is no
            function of sums (a ranking of all samples); a rule has the one or the other.
    """

    describe: Callable[[Tools], str]
    grade: Callable[[Sequence[Answered], Tools], list[AnswerScore]]
    statistic: Statistic | None = None
    of_samples: SampleStatistic | None = None
    qualifier: Callable[[Sequence[Answered]], str] | None = None

    def __post_init__(self):
        if (self.statistic is None) == (self.of_samples is None):
            raise ValueError("a Rule needs either `statistic` or `of_samples`, not both or neither")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure in both readings; `higher` says whether more is better."""

    name: str
    paper: ScoringRule
    strict: ScoringRule
    higher: bool
