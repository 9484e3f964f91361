"""Mentions that an answer means: not those that it denies, doubts, asks or supposes."""

import collections
import dataclasses
from collections.abc import Collection, Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import lexicon
from ltu_jax.evaluation.scoring.reading.clauses import Clause, Token, clauses

_LONGEST_PHRASE = 5
_FURTHEST = 20  # tokens between a mention and what denies it behind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mention:
    """Tokens `first` to `last` (not included) name `meaning`."""

    meaning: str | float
    first: int
    last: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatedMeanings:
    """Meanings that a text claims, in the order it names them, and those that it denies."""

    claimed: tuple[str | float, ...]
    denied: frozenset[str | float]


def meant(tokens: Sequence[Token], mentions: Collection[Mention]) -> list[str | float]:
    """Return the meanings that a text claims, each once, in the order it names them.

    What it claims and denies as well is not among them.
    """
    found = claims(tokens, mentions)
    return [meaning for meaning in found.claimed if meaning not in found.denied]


def claims(tokens: Sequence[Token], mentions: Collection[Mention]) -> StatedMeanings:
    """Return what a text claims and what it denies, each once; something may be both."""
    inside = {place for mention in mentions for place in range(mention.first, mention.last)}
    claimed: dict[str | float, None] = {}
    denied: set[str | float] = set()
    before: list[Mention] = []
    left = collections.deque(sorted(mentions, key=lambda mention: mention.first))
    for clause in clauses(tokens):
        own = []
        while left and left[0].first < clause.last:
            own.append(left.popleft())
        if not own and _takes_back(tokens, clause):
            denied |= {mention.meaning for mention in before}
            for mention in before:
                claimed.pop(mention.meaning, None)
        states = _states(tokens, clause, inside)
        for mention in own:
            if (
                _denied_behind(tokens, mention, clause, inside)
                or states[mention.first - clause.first] == "no"
            ):
                denied.add(mention.meaning)
            elif not clause.asked and not states[mention.first - clause.first]:
                claimed[mention.meaning] = None
        words = any(token.word for token in tokens[clause.first : clause.last])
        before = own if own else before if not words else []
    return StatedMeanings(claimed=tuple(claimed), denied=frozenset(denied))


def _states(tokens: Sequence[Token], clause: Clause, inside: Collection[int]) -> list[str]:
    """Return of each token "no" where it is denied, "maybe" where it is doubted, else ""."""
    result, state, until_comma = [], "", False
    phrases = dict(_phrases(tokens, clause))
    skip = clause.first
    texts = [token.text for token in tokens[clause.first : clause.last]]
    for place, text in enumerate(texts, start=clause.first):
        following = tokens[place + 1].text if place + 1 < len(tokens) else ""
        if place < skip or place in inside:
            pass
        elif place in phrases:
            kind, length = phrases[place]
            skip = place + length
            if kind == "toggle":
                state = "" if state else "no"
            elif kind != "emphasis":
                state, until_comma = "no", kind == "until comma"
        elif lexicon.denies(text):
            discourse = text in lexicon.YES_OR_NO and (
                place + 1 >= clause.last or following in (",", ":", ".", "!", ";")
            )
            if not discourse and following not in lexicon.ENDING:
                state, until_comma = "no", text in lexicon.UNTIL_COMMA and not place - clause.first
        elif text in lexicon.DOUBTS:
            state = state or "maybe"
        elif text == "unlike":
            state, until_comma = "no", True
        elif text == "too" and "to" in texts[place - clause.first : place - clause.first + 4]:
            state = "no"
        elif text == "," and until_comma and not _listed(texts, place - clause.first):
            state, until_comma = "", False
        result.append(state)
    if texts[-3:-1] == ["or", "not"] or texts[-2:] == ["or", "not"]:
        return ["maybe"] * len(result)
    return result


def _listed(texts: Sequence[str], place: int) -> bool:
    """Tell whether a comma parts the members of a list."""
    return any(text in ("or", "nor") for text in texts[place + 1 : place + 5])


def _phrases(tokens: Sequence[Token], clause: Clause) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield (place, (kind, number of tokens)) of the phrases of several words."""
    texts = [token.text for token in tokens[clause.first : clause.last]]
    for place in range(len(texts)):
        for length in range(_LONGEST_PHRASE, 0, -1):
            phrase = " ".join(texts[place : place + length])
            kind = _KINDS.get(phrase)
            if kind is not None and place + length <= len(texts):
                yield clause.first + place, (kind, length)
                break


_KINDS = {
    **dict.fromkeys(lexicon.DENYING_PHRASES, "no"),
    **dict.fromkeys(lexicon.UNTIL_COMMA - lexicon.DENIALS - {"unlike"}, "until comma"),
    **dict.fromkeys(lexicon.TOGGLES, "toggle"),
    **dict.fromkeys(lexicon.EMPHASIS, "emphasis"),
}


def _denied_behind(
    tokens: Sequence[Token], mention: Mention, clause: Clause, inside: Collection[int]
) -> bool:
    """Tell whether the clause denies a mention behind it: "a dog in the yard is not heard"."""
    place, several = _last_of_list(tokens, mention.last, clause, inside)
    verb = False
    while place < min(clause.last, mention.last + _FURTHEST):
        text = tokens[place].text
        following = tokens[place + 1].text if place + 1 < clause.last else ""
        if place in inside or following in lexicon.ENDING:
            return False
        if several and text.removesuffix("n't") in _SINGULAR:
            return False
        contracted = text.endswith("n't") or text in lexicon.CONTRACTED
        if contracted or (verb and (text in ("not", "never", "no") or _predicate(text, following))):
            return True
        if text in lexicon.AUXILIARIES:
            verb = True
        elif text in lexicon.PREPOSITIONS and not verb:
            place += 2 if following in lexicon.DETERMINERS else 1
        elif text not in lexicon.BETWEEN and text not in ("sound", "sounds", "voice", "barking"):
            return False
        place += 1
    return False


_SINGULAR = frozenset(("is", "was", "has", "does"))


def _last_of_list(
    tokens: Sequence[Token], place: int, clause: Clause, inside: Collection[int]
) -> tuple[int, bool]:
    """Return (where the verb may stand, whether mentions share it): "A and B are wrong"."""
    several, end = False, min(clause.last, place + _FURTHEST)
    while place < end and tokens[place].text in (",", "and", "or"):
        after = place + 1
        while after < end and tokens[after].text in (",", "and", "or", *lexicon.DETERMINERS):
            after += 1
        if after not in inside:
            break
        while after in inside:
            after += 1
        place, several = after, True
    return place, several


def _predicate(text: str, following: str) -> bool:
    if text == "ruled":
        return following == "out"
    return text in lexicon.DENYING_PREDICATES


def _takes_back(tokens: Sequence[Token], clause: Clause) -> bool:
    """Tell whether a clause without content denies what was said before it: "but it is not"."""
    texts = [token.text for token in tokens[clause.first : clause.last] if token.word]
    if not any(lexicon.denies(text) or text == "nope" for text in texts):
        return False
    return not any(
        not (text in lexicon.PRO_FORMS or text.endswith("n't") or text in lexicon.CONTRACTED)
        for text in texts
    )
