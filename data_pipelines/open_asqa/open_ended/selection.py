"""Which pairs of a source are kept, when each was looked at by itself: doubles, caps, shares.

Of every pair a few numbers are held, not its text: a million pairs take 300 MB.
"""

import dataclasses
import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

from data_pipelines.open_asqa.open_ended import near_duplicates
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.pair_rules import is_unanswerable

_CHUNK = 4096  # signatures that are put together
UNANSWERABLE, DOUBLE, NEAR_DOUBLE, CAPPED = (
    "unanswerable", "double", "nearly a double", "question too often",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """What is kept of pairs that are sound.

    Attributes:
        unanswerable: share of the kept pairs that may say that there is no answer, 0 to 1.
        doubles: keep pairs that are the same or nearly.
        near: share of word triples in common from which pairs are nearly the same; 1 for none.
        question_cap: pairs that may have the same question.
    """

    unanswerable: float
    doubles: bool
    near: float
    question_cap: int


class PairSelection:
    """The pairs of a source, in their order."""

    def __init__(self, settings: SelectionSettings):
        self._settings = settings
        self._reasons: list[str] = []  # of all pairs; equal ones are one object
        self._places = array("Q")  # of sound pairs among all
        self._texts, self._questions, self._answers = array("Q"), array("Q"), array("Q")
        self._identities = array("Q")
        self._unanswerable, self._ours = bytearray(), bytearray()
        self._signatures: list[np.ndarray] = []
        self._recent: list[np.ndarray] = []

    def add(self, clip_id: str, pair: QuestionAnswer, problem: str, *, ours: bool = False) -> None:
        """Take the next pair.

        Args:
            clip_id: the clip that it is about.
            pair: the pair.
            problem: why it is not sound; "" if it is.
            ours: whether the question is one of our wordings, which may come any number of times.
        """
        self._reasons.append(problem)
        if problem:
            return
        question = near_duplicates.normal(pair.question)
        answer = near_duplicates.normal(pair.answer)
        self._places.append(len(self._reasons) - 1)
        self._questions.append(_hash(question))
        self._answers.append(_hash(answer))
        self._texts.append(_hash(f"{question}\n{answer}"))
        self._identities.append(_hash(f"{clip_id}\n{pair.question}\n{pair.answer}"))
        self._unanswerable.append(is_unanswerable(pair.answer))
        self._ours.append(ours)
        if not self._settings.doubles and self._settings.near < 1:
            self._recent.append(near_duplicates.signature(f"{pair.question} {pair.answer}"))
            if len(self._recent) == _CHUNK:
                self._signatures.append(np.stack(self._recent))
                self._recent = []

    def decide(self) -> list[str]:
        """Return why each pair is refused, in the order in which they came; "" for kept ones."""
        kept = np.ones(len(self._places), bool)
        reasons = np.full(len(self._places), "", dtype=object)

        def refuse(which: np.ndarray, reason: str) -> None:
            reasons[kept & which] = reason
            kept[which] = False

        if not self._settings.doubles:
            refuse(_repeated(np.array(self._texts)), DOUBLE)
            if self._settings.near < 1:
                refuse(self._near(kept), NEAR_DOUBLE)
        refuse(self._too_often(kept), CAPPED)
        refuse(self._too_many_unanswerable(kept), UNANSWERABLE)
        result = list(self._reasons)
        for place, reason in zip(self._places, reasons, strict=True):
            result[place] = reason
        return result

    def unique_shares(self, reasons: Sequence[str]) -> tuple[float, float]:
        """Return which shares of the kept pairs' questions and answers are unique."""
        kept = np.array([not reasons[place] for place in self._places], bool)
        count = int(kept.sum())
        shares = (
            len(np.unique(np.array(hashes)[kept])) / count if count else 0.0
            for hashes in (self._questions, self._answers)
        )
        first, second = shares
        return first, second

    def _near(self, kept: np.ndarray) -> np.ndarray:
        parts = [*self._signatures, *([np.stack(self._recent)] if self._recent else ())]
        which = np.zeros(len(kept), bool)
        if parts:
            signatures = np.concatenate(parts)[kept]
            found = near_duplicates.near_duplicates(signatures, threshold=self._settings.near)
            which[np.flatnonzero(kept)[found]] = True
        return which

    def _too_often(self, kept: np.ndarray) -> np.ndarray:
        """Return which pairs have a question that enough others have; a hash chooses."""
        places = np.flatnonzero(kept & ~np.frombuffer(bytes(self._ours), bool))
        questions = np.array(self._questions)[places]
        identities = np.array(self._identities)[places]
        order = np.lexsort((identities, questions))
        _, starts, sizes = np.unique(questions[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(starts, sizes)
        which = np.zeros(len(kept), bool)
        which[places[order[rank >= self._settings.question_cap]]] = True
        return which

    def _too_many_unanswerable(self, kept: np.ndarray) -> np.ndarray:
        """Return the unanswerable pairs above their share; a hash chooses."""
        unanswerable = np.frombuffer(bytes(self._unanswerable), bool)
        places = np.flatnonzero(kept & unanswerable)
        share, which = self._settings.unanswerable, np.zeros(len(kept), bool)
        if share < 1:
            others = int(kept.sum()) - len(places)
            allowed = int(share / (1 - share) * others)
            order = np.argsort(np.array(self._identities)[places], kind="stable")
            which[places[order[allowed:]]] = True
        return which


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Return which entries were there before."""
    which = np.ones(len(hashes), bool)
    which[np.unique(hashes, return_index=True)[1]] = False
    return which


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
