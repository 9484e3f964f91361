"""Answers read without a guess: one meaning, which the answer claims, or nothing at all.

These are our own rules; each answers a trap of the official ones in `paper.py`. What a sentence
claims is told in `ltu_jax/evaluation/scoring/reading/`.
"""

import re

from ltu_jax.evaluation.scoring.interface import Status
from ltu_jax.evaluation.scoring.reading.ages import OLDEST, age
from ltu_jax.evaluation.scoring.reading.classes import named_class, named_classes
from ltu_jax.evaluation.scoring.reading.genders import gender
from ltu_jax.evaluation.scoring.reading.options import option
from ltu_jax.evaluation.scoring.reading.quiet import says_quiet
from ltu_jax.evaluation.scoring.reading.yes_no import yes_or_no

__all__ = [
    "REFUSALS",
    "age",
    "gender",
    "largest_age_error",
    "named_class",
    "named_classes",
    "option",
    "refused",
    "says_quiet",
    "status",
    "yes_or_no",
]

# An answer with one of these declines, if it does not answer all the same.
REFUSALS = (
    "as an ai",
    "i am sorry",
    "i'm sorry",
    "i apologize",
    "i cannot",
    "i can't",
    "i can not",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i do not know",
    "i don't know",
    "cannot be determined",
    "can't be determined",
    "cannot be answered",
    "unable to determine",
    "not able to determine",
    "impossible to determine",
    "impossible to tell",
    "not possible to determine",
    "not possible to tell",
    "not enough information",
)
_REFUSAL = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, REFUSALS))})(?!\w)")


def refused(text: str) -> bool:
    """Tell whether the text has one of `REFUSALS`, as whole words."""
    return _REFUSAL.search(_plain(text)) is not None


def status(output: str | None, *, parsed: bool) -> Status:
    """Return what became of an answer; one that answers and apologises as well is parsed."""
    if output is None:
        return Status.MISSING
    if parsed:
        return Status.PARSED
    return Status.REFUSED if refused(output) else Status.UNPARSED


def largest_age_error(true_age: float) -> float:
    """Return the most that an age of 0 to 100 could be off: the charge of an answer without one."""
    return max(true_age, OLDEST - true_age)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().replace("\u2019", "'"))
