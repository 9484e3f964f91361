"""Whether an answer affirms or denies that something is there."""

import re
from collections.abc import Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import classes, clauses, denial, lexicon
from ltu_jax.evaluation.scoring.reading.clauses import Clause, Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

YES, NO = "yes", "no"
_WORDS = {"yes": YES, "yeah": YES, "yep": YES, "yup": YES, "no": NO, "nope": NO, "nah": NO}
# Who says that he does not know denies nothing.
_OPEN = lexicon.words_of("whether if unless unsure uncertain unclear doubtful unable")
_KNOWING = lexicon.words_of("sure certain tell know say judge determine")
_EMPTY = lexicon.words_of("hear heard one any")
_OPINION = lexicon.words_of("say think believe")
_BRACKET = re.compile(r"[()]")
_ARTICLES = lexicon.words_of("a an the")


def yes_or_no(text: str, asked: Sequence[str]) -> str | None:
    """Return "yes" or "no", whichever alone an answer says; None where it says neither or both.

    It says so by the word ("Yes.", "No, a cat is heard"), by naming what is asked about ("There is
    no dog", "A dog barks"), or in short ("I don't think so"). What it asks or does not know is
    neither, and "Yes, there is no dog" is both.

    Args:
        text: the answer.
        asked: names of what is asked about: "a dog", "Dog".
    """
    for name in asked:
        text = re.sub(re.escape(name), _unbracketed, text, flags=re.IGNORECASE)
    names = tuple(dict.fromkeys(_bare(_BRACKET.sub("", name)) for name in asked))
    for part in (clauses.concluded(text), text):
        said = _said(part, names)
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _unbracketed(name: re.Match[str]) -> str:
    """Return a name without its brackets, each of which would end a clause."""
    return _BRACKET.sub("", name.group())


def _bare(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if rest and first.lower() in _ARTICLES else name


def _said(text: str, names: tuple[str, ...]) -> set[str]:
    prepared = clauses.prepared(text)
    tokens = clauses.tokens(prepared)
    named = [
        Mention(meaning="asked", first=mention.first, last=mention.last)
        for mention in classes.mentions(clauses.lower(prepared), tokens, names)
    ]
    inside = {place for mention in named for place in range(mention.first, mention.last)}
    parts = clauses.clauses(tokens)
    short = [mention for part in parts for mention in _short(tokens, part, inside)]
    named = [mention for mention in named if not _left_open(tokens, parts, mention)]
    found = denial.claims(tokens, [*named, *short])
    said = {str(meaning) for meaning in found.claimed if meaning != "asked"}
    said |= {YES} if "asked" in found.claimed else set()
    return said | ({NO} if "asked" in found.denied else set())


def _short(tokens: Sequence[Token], part: Clause, inside: set[int]) -> Iterator[Mention]:
    """Yield what a clause says by "yes" or "no", or by a verb without content: "I do not"."""
    places = [place for place in range(part.first, part.last) if tokens[place].word]
    words = [tokens[place].text for place in places]
    replies = [place for place in places if _reply(tokens, place, part)]
    for place in replies:
        yield Mention(meaning=_WORDS[tokens[place].text], first=place, last=place + 1)
    if replies or not places or not inside.isdisjoint(places):
        return
    if all(_no_content(word) for word in words):
        denied = any(lexicon.denies(word) for word in words)
        if denied or "so" in words or _ends_with_verb(words):
            meaning = NO if denied else YES
            yield Mention(meaning=meaning, first=places[0], last=places[-1] + 1)


def _reply(tokens: Sequence[Token], place: int, part: Clause) -> bool:
    """Tell whether a word is "yes" or "no" itself, not the beginning of "no dog"."""
    if tokens[place].text not in _WORDS:
        return False
    following = tokens[place + 1].text if place + 1 < len(tokens) else "."
    return place + 1 == part.last or following in ".,!;:" or following in ("and", "or")


def _ends_with_verb(words: Sequence[str]) -> bool:
    """Tell whether "I do" or "it is there" says that it is so, and not "I would say"."""
    return _OPINION.isdisjoint(words) and not lexicon.AUXILIARIES.isdisjoint(words)


def _no_content(word: str) -> bool:
    return word in lexicon.PRO_FORMS or word in _EMPTY or lexicon.denies(word)


def _left_open(tokens: Sequence[Token], parts: Sequence[Clause], mention: Mention) -> bool:
    """Tell whether a clause asks or does not know: "I cannot tell whether a dog is heard"."""
    part = next(part for part in parts if part.first <= mention.first < part.last)
    if tokens[part.last - 1].text == "?":
        return True
    before = [token.text for token in tokens[part.first : mention.first]]
    if not _OPEN.isdisjoint(before):
        return True
    return any(map(lexicon.denies, before)) and not _KNOWING.isdisjoint(before)
