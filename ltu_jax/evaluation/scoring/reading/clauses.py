"""An answer as clauses of tokens, so that a denial ends where its clause does."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import lexicon

_QUOTES = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4\u2032`", "'"), "\u201a": ",", "\u2212": "-"}
)
_SPACE = re.compile(r"\s+")
# A line of its own: a list, or a sentence after another. A line that was only wrapped goes on.
_OPENING = re.compile(r"[A-Z0-9(*\-\u2022]")
_DASH = re.compile(r"\s+[\-\u2010-\u2015]{1,2}\s+(?!\d)|[\u2013-\u2015](?!\d)")
_HYPHEN = re.compile(r"(?<=\w)[\-\u2010-\u2015](?=[^\W\d])")
_BLANK = re.compile(r"[\s_*\"\u201c-\u201f\u00ab\u00bb]+")
_TAG = re.compile(r",\s*\w+n't (?:it|he|she|they|there|that|this)\s*\?")
# The last place where an answer says that its answer follows.
_CONCLUSION = re.compile(
    r".*\b(?:answer|choice|option|response|conclusion)(?:\s+(?:is|would be|must be)\b|\s*[:=])",
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|\w+|\S")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Token:
    """A word in lower case, a number or a mark, and where in the prepared text it stands."""

    text: str
    start: int
    end: int

    @property
    def word(self) -> bool:
        """Whether it is no mark."""
        return self.text[0].isalnum()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clause:
    """Tokens `first` to `last` (not included); `asked` where the text asks instead of saying."""

    first: int
    last: int
    asked: bool


def prepared(text: str) -> str:
    """Return the text in one spelling: composed letters, straight quotes, hyphens as spaces.

    Case is kept. New lines that begin a sentence and dashes become marks that end a clause.
    """
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    text = _DASH.sub(" ; ", _SPACE.sub(_line_end, text))
    return _BLANK.sub(" ", _HYPHEN.sub(" ", _TAG.sub(" .", text))).strip()


def _line_end(space: re.Match[str]) -> str:
    lines, opens = space.group().count("\n"), _OPENING.match(space.string, space.end())
    return " ; " if lines > 1 or (lines and opens) else " "


def lower(text: str) -> str:
    """Return the text in lower case, place for place."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def concluded(text: str) -> str:
    """Return what follows the last "the answer is" or the like, or nothing."""
    match = _CONCLUSION.match(text)
    return text[match.end() :] if match else ""


def tokens(text: str) -> list[Token]:
    """Return words, numbers and marks of a prepared text."""
    return [
        Token(text=lower(match.group()), start=match.start(), end=match.end())
        for match in _TOKEN.finditer(text)
    ]


def clauses(sequence: Sequence[Token]) -> list[Clause]:
    """Return the clauses of a text, in order; marks that end one belong to it."""
    cuts = sorted({0, len(sequence), *_cuts(sequence)})
    spans = list(zip(cuts, cuts[1:], strict=False))
    questions = _asked(sequence)
    return [Clause(first=first, last=last, asked=first in questions) for first, last in spans]


def _cuts(sequence: Sequence[Token]) -> Iterator[int]:
    """Return where clauses begin."""
    denied = False
    for place, token in enumerate(sequence):
        text = token.text
        after = [other.text for other in sequence[place + 1 : place + 7]] + [""] * 6
        if text in ".!?;":
            denied = False
            yield place + 1
        elif text == ":":
            if not denied:
                yield place + 1
        elif text == "(" and after[1] != ")":
            yield place
        elif text == ")" and place >= 2 and sequence[place - 2].text != "(":
            yield place + 1
        elif text in lexicon.YES_OR_NO and _begins(sequence, place):
            if after[0] in (",", ":", "") or after[0] in lexicon.SUBJECTS:
                yield place + 1
        elif text == "but" and place and sequence[place - 1].text in lexicon.BEFORE_BUT:
            continue  # "anything but": no turn
        elif text in lexicon.TURNS or _turns(text, after[0]):
            yield place
        elif text == "," and _new_clause(after):
            yield place + 1
        denied |= lexicon.denies(text)


def _turns(text: str, following: str) -> bool:
    """Tell whether a word that often is no turn is one before this other."""
    if text in ("and", "so"):
        return following in lexicon.SUBJECTS
    return (text == "rather" and following not in ("than", "")) or (
        text == "instead" and following != "of"
    )


def _begins(sequence: Sequence[Token], place: int) -> bool:
    return place == 0 or sequence[place - 1].text in ",.!?;:"


def _new_clause(after: Sequence[str]) -> bool:
    """Tell whether what follows a comma is a sentence, not the next of a list."""
    first = after[1] if after[0] in ("and", "so", "then") else after[0]
    if first in lexicon.SUBJECTS or first in lexicon.AFTER_COMMA:
        return not (first in ("rather", "instead") and after[1] in ("than", "of"))
    if first not in lexicon.DETERMINERS:
        return False
    for text in after[1:6]:
        if text in lexicon.AUXILIARIES or text.endswith("n't"):
            return True
        if not text[:1].isalnum() or text in ("or", "nor", "and"):
            return False
    return False


def _asked(sequence: Sequence[Token]) -> set[int]:
    """Return where the tokens of questions stand: "Is it a dog?", if no "Yes" follows."""
    result: set[int] = set()
    first = 0
    for place, token in enumerate(sequence):
        if token.text in ".!?;":
            opens = sequence[first].text if first < place else ""
            following = sequence[place + 1].text if place + 1 < len(sequence) else ""
            asks = opens in lexicon.AUXILIARIES or opens in lexicon.ASKING
            if token.text == "?" and asks and following != "yes":
                result.update(range(first, place + 1))
            first = place + 1
    return result
