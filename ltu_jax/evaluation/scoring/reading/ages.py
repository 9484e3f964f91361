"""The age that an answer gives, in digits."""

import re
from collections.abc import Sequence

from ltu_jax.evaluation.scoring.reading import clauses, denial
from ltu_jax.evaluation.scoring.reading.clauses import Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

OLDEST = 100

# A number that stands alone. Not one: a decade (30s, 30's, 50ish), a percentage, a price, a time,
# a date, a thousand (3,000), more than (30+), less than zero, a part of a name (v2.0, x25).
_BEFORE = r"(?<![\w./$\u20ac\u00a3#+\-\u2010-\u2015\u2212])(?<!\d[:,])"
_AFTER = r"(?!\w|%|\+|['\u2019]s\b|[.,:/\-\u2010-\u2015]\d)"
_YEARS = r"\d{1,3}(?:\.\d+)?"
_RANGE = re.compile(
    rf"{_BEFORE}(?:between\s+({_YEARS})\s+and\s+({_YEARS})"
    rf"|({_YEARS})\s*(?:[\-\u2010-\u2015]|to\b)\s*({_YEARS})|({_YEARS})){_AFTER}",
    re.IGNORECASE,
)
# A bound is no age: what stands before or behind a number that makes one of it.
_BOUND_BEFORE = re.compile(
    r"\b(?:under|over|above|below|beyond|past|exceed(?:s|ing)?|up to|at (?:the )?(?:least|most)"
    r"|(?:more|less|fewer|older|younger|greater|higher|lower|bigger|smaller|other|elder) than"
    r"|(?:maximum|minimum|max|min)(?: of)?|no (?:older|younger|more|less) than|not yet|turning"
    r"|since|until|till|before|after|from|born in|(?:the )?year|starting at|minus|plus)"
    r"(?:\s+(?:the )?age(?:s)?(?: of)?)?(?:\s+(?:about|around|approximately|roughly))?\s*$",
    re.IGNORECASE,
)
_BOUND_AFTER = re.compile(
    r"\s*(?:\+|years?(?: old| of age)?|y(?:ears|rs?)?\.?(?:/?o)?\b)?\s*(?:,\s*)?(?:"
    r"(?:or|and) (?:older|younger|above|over|under|below|more|less|up|upwards?)"
    r"|plus\b|at (?:the )?(?:least|most)|(?:at )?(?:the )?(?:maximum|minimum)|max\b|min\b|upwards?"
    r"|(?:older|younger|more|less) than)",
    re.IGNORECASE,
)
# What is counted, where it is no years.
_OTHER_UNIT = re.compile(
    r"\s*(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|decades?|centur\w+"
    r"|milliseconds?|ms|k?hz|hertz|kilohertz|db|decibels?|bpm|beats?|percent|per cent|times"
    r"|people|persons?|speakers?|men|women|voices?|words?|sentences?|clips?|degrees?|dollars?"
    r"|euros?|pounds?|kg|km|cm|m|am|pm|o'clock|st|nd|rd|th|out of|of (?:them|the)"
    r"|years? (?:ago|later|earlier|before|after|younger|older|apart|experience|of experience))\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\b(?:speaker|person|voice|number|no|channel|track|clip|room|id|option|choice|part|version)"
    r"\.?\s*$",
    re.IGNORECASE,
)
# Numbers in words from 13 on; a smaller one counts something else.
_IN_WORDS = re.compile(
    r"\b(?:(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|hundred)",
    re.IGNORECASE,
)


def age(text: str) -> float | None:
    """Return the one age of 0 to 100 years that the text gives, in digits, or None.

    Decimals are kept, "30-40", "30 to 40" and "between 30 and 40" are their mean, and a number said
    twice is one. A bound ("under 18"), a number of something else ("30 seconds"), one that is
    denied ("not 25") and any other digit or a number in words, as in "the 2 speakers are 25" or
    "between thirty and 40", leave it unparsed, unless "the answer is" follows.
    """
    return _age(clauses.concluded(text)) if _RANGE.search(clauses.concluded(text)) else _age(text)


def _age(text: str) -> float | None:
    text = text.replace(_PLACEHOLDER, " ")
    ranges = list(_RANGE.finditer(text))
    if re.search(r"\d", _RANGE.sub(" ", text)) or _IN_WORDS.search(text):
        return None
    tokens, mentions = _tokens(text, ranges)
    meant = denial.meant(tokens, mentions)
    if len(meant) != 1:
        return None
    years = meant[0]
    return years if isinstance(years, float) and years <= OLDEST else None


def _tokens(text: str, ranges: Sequence[re.Match[str]]) -> tuple[list[Token], list[Mention]]:
    """Return the text's tokens, each number or range of ages as one, and what the ages mean."""
    pieces, values = [], []
    end = 0
    for match in ranges:
        bounds = [float(number) for number in match.groups() if number is not None]
        before, after = text[end : match.start()], text[match.end() :]
        pieces.append(_without_range_word(before, bounds))
        end = match.end()
        counted = _OTHER_UNIT.match(after) or _NUMBERED.search(before)
        whole = len(bounds) > 1
        bound = _BOUND_AFTER.match(after) or (
            _BOUND_BEFORE.search(_without_range_word(before, bounds))
        )
        ordered = bounds == sorted(bounds)
        said = ordered and not counted and not (bound and not whole)
        values.append(sum(bounds) / len(bounds) if said else None)
        pieces.append(f" {_PLACEHOLDER} ")
    pieces.append(text[end:])
    tokens = clauses.tokens(clauses.prepared("".join(pieces)))
    places = [place for place, token in enumerate(tokens) if token.text == _PLACEHOLDER]
    mentions = [
        # A bound, or what no age is, still is a meaning: beside it no other is the one.
        Mention(meaning="none" if value is None else value, first=place, last=place + 1)
        for place, value in zip(places, values, strict=True)
    ]
    return tokens, mentions


# Stands for a number while clauses are found; taken out of the text itself.
_PLACEHOLDER = "\u0278"


def _without_range_word(before: str, bounds: Sequence[float]) -> str:
    """Return what stands before a range without its "from"."""
    return re.sub(r"\bfrom\s*$", "", before, flags=re.IGNORECASE) if len(bounds) > 1 else before
