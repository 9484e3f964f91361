"""Classes of a list that an answer names, in any form of their words."""

import bisect
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import clauses, denial, forms, lexicon
from ltu_jax.evaluation.scoring.reading.clauses import Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

# Words between two words of a class: "a car honks its horn".
_GAP = 4
_LOOSE = 3  # words of a class up to which their order is free
_SKIPPED = lexicon.words_of("a an the is are was were of on in to and its his her their")
_STOPS = lexicon.words_of("and or but while , ;")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Label:
    choice: str
    name: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


def named_classes(text: str, choices: Sequence[str]) -> tuple[str, ...]:
    """Return all choices that `text` says to be there, in their own order.

    Of a class all words are named in some form ("frogs are croaking" for "frog croaking"), of
    several classes in the same words the longest. A class that is denied, doubted or only the first
    word of a compound ("cow bell") is not named. Named twice it is still one class.
    """
    for part in (clauses.concluded(text), text):
        tokens = clauses.tokens(prepared := clauses.prepared(part))
        affirmed = set(denial.meant(tokens, mentions(clauses.lower(prepared), tokens, choices)))
        if affirmed:
            return tuple(choice for choice in choices if choice in affirmed)
    return ()


def named_class(text: str, choices: Sequence[str]) -> str | None:
    """Return the one choice that `text` names, or None when it names none or several."""
    named = set(named_classes(text, choices))
    return named.pop() if len(named) == 1 else None


def mentions(text: str, tokens: Sequence[Token], choices: Sequence[str]) -> list[Mention]:
    """Find the choices in a text: exact wording first, then forms of their words.

    Args:
        text: prepared, in lower case.
        tokens: its tokens.
        choices: the classes.
    """
    labels = _labels(tuple(choices))
    taken = _other_things(tokens, labels)
    result = []
    for label in labels:
        for span in _exact(label, text, tokens):
            if taken.isdisjoint(span):
                taken.update(span)
                result.append(Mention(meaning=label.choice, first=span[0], last=span[-1] + 1))
    known = [forms.keys(token.text) if token.word else frozenset() for token in tokens]
    everything = frozenset().union(*known) | {_joined(tokens, at) for at in range(len(tokens))}
    for label in labels:
        if not _may_stand(label, everything):
            continue
        for span in _inflected(label, tokens, known, taken):
            taken.update(span)
            result.append(Mention(meaning=label.choice, first=span[0], last=span[-1] + 1))
    heads = {mention.first for mention in result}
    return [mention for mention in result if not _is_no_thing(mention, tokens, heads)]


@functools.lru_cache(maxsize=256)
def _labels(choices: tuple[str, ...]) -> tuple[_Label, ...]:
    """Return the labels, the longest first."""
    labels = []
    for choice in choices:
        name = clauses.lower(clauses.prepared(choice)).strip(" ;")
        words = tuple(token.text for token in clauses.tokens(name) if token.word)
        if name:
            pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
            labels.append(_Label(choice=choice, name=name, words=words, pattern=pattern))
    return tuple(sorted(labels, key=lambda label: len(label.name), reverse=True))


def _other_things(tokens: Sequence[Token], labels: Sequence[_Label]) -> set[int]:
    """Return tokens of phrases that mean something else than their words, and no label means."""
    texts = [token.text for token in tokens]
    taken: set[int] = set()
    for phrase in lexicon.OTHER_THINGS:
        if any(phrase.removesuffix("s") in label.name for label in labels):
            continue
        words = phrase.split()
        for place in range(len(texts) - len(words) + 1):
            if texts[place : place + len(words)] == words:
                taken.update(range(place, place + len(words)))
    return taken


def _exact(label: _Label, text: str, tokens: Sequence[Token]) -> Iterator[list[int]]:
    if label.name not in text:  # quick to say, and nearly always so among hundreds of classes
        return
    for match in label.pattern.finditer(text):
        first = bisect.bisect_right(tokens, match.start(), key=lambda token: token.end)
        last = bisect.bisect_left(tokens, match.end(), key=lambda token: token.start)
        span = list(range(first, last))
        if span and _standing(label, tokens, span):
            yield span


def _standing(label: _Label, tokens: Sequence[Token], span: Sequence[int]) -> bool:
    """Tell whether "no" and "yes" are the answer, not the first word of a noun phrase: "no dog"."""
    if label.words != ("no",):
        return True
    following = tokens[span[-1] + 1].text if span[-1] + 1 < len(tokens) else "."
    return following in ".,!;:" or following in lexicon.SUBJECTS


def _joined(tokens: Sequence[Token], place: int) -> str:
    """Return a token and the next as one word: "foot steps"."""
    pair = tokens[place : place + 2]
    return "+" + "".join(token.text for token in pair) if len(pair) == 2 else ""


def _may_stand(label: _Label, everything: frozenset[str]) -> bool:
    """Tell whether all words of a label occur; else there is nothing to look for."""
    if all(not forms.keys(word).isdisjoint(everything) for word in label.words):
        return True
    whole = "".join(label.words)
    return not forms.keys(whole).isdisjoint(everything) or any(
        form[:1] == "+" and forms.same(form[1:], whole) for form in everything if len(form) > 3
    )


def _inflected(
    label: _Label, tokens: Sequence[Token], known: Sequence[frozenset[str]], taken: set[int]
) -> Iterator[list[int]]:
    """Yield spans of tokens that are forms of a label's words."""
    whole = "".join(label.words)
    for place, token in enumerate(tokens):
        if place in taken or not token.word:
            continue
        if len(label.words) == 1:
            if forms.names(token.text, whole) and not _is_verb_of(tokens, place, whole):
                yield [place]
        elif forms.same(token.text, whole):
            yield [place]
        pair = [place, place + 1]
        if pair[1] < len(tokens) and pair[1] not in taken and tokens[pair[1]].word:
            joined = _joined(tokens, place)[1:]
            if forms.same(joined, whole) and not lexicon.function_word(token.text):
                yield pair
    if len(label.words) > 1:
        yield from _several(label.words, tokens, known, taken)


def _is_verb_of(tokens: Sequence[Token], place: int, label: str) -> bool:
    """Tell whether a word is what another does: the rooster crows."""
    subjects = lexicon.SUBJECTS_OF.get(label, frozenset())
    return any(token.text in subjects for token in tokens[max(place - 2, 0) : place])


def _several(
    words: Sequence[str],
    tokens: Sequence[Token],
    known: Sequence[frozenset[str]],
    taken: set[int],
) -> Iterator[list[int]]:
    """Return spans that hold a form of each word: close by in one clause, else in order."""
    content = [word for word in words if word not in _SKIPPED]
    free = len(words) <= _LOOSE and len(content) == len(words)
    needed = [forms.keys(word) for word in content]
    for start, own in enumerate(known):
        if start in taken or not content:
            continue
        if free and not any(own & places for places in needed):
            continue
        if not free and not own & needed[0]:
            continue
        left, span, gap = list(zip(content, needed, strict=True)), [], 0
        for place in range(start, len(tokens)):
            text = tokens[place].text
            if place in taken or (span and (gap > _GAP or text in ".!?;:(")):
                break
            fits = [
                at
                for at, (word, places) in enumerate(left if free else left[:1])
                if known[place] & places and _as_noun(tokens, place, word)
            ]
            if fits:
                span.append(place)
                left.pop(fits[0])
                gap = 0
            elif (free and text in _STOPS) or not (free or text in _SKIPPED):
                break
            else:
                gap += 1
            if not left:
                yield span
                break


def _as_noun(tokens: Sequence[Token], place: int, word: str) -> bool:
    """Tell whether "can" is a tin: behind an article or beside its verb, before no other one."""
    if word not in lexicon.AUXILIARIES or tokens[place].text != word:
        return True
    before = tokens[place - 1].text if place else ""
    return before in lexicon.DETERMINERS or before in ("of", "tin", "soda", "beer")


def _is_no_thing(mention: Mention, tokens: Sequence[Token], heads: set[int]) -> bool:
    """Tell whether a mention only tells the kind of what the next word is: "rain forest"."""
    if mention.last >= len(tokens) or mention.last in heads or not tokens[mention.last].word:
        return False
    if not tokens[mention.last - 1].word:
        return False
    return forms.compound(tokens[mention.last - 1].text, tokens[mention.last].text)
