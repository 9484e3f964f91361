"""The option of a multiple choice that an answer names, by its letter or its text."""

import re
from collections.abc import Iterator, Sequence

from ltu_jax.evaluation.scoring.reading import classes, clauses, denial, lexicon
from ltu_jax.evaluation.scoring.reading.clauses import Token
from ltu_jax.evaluation.scoring.reading.denial import Mention

# "(B) A woman" and "B. A woman" in the data's own list of options.
_OWN_LETTER = re.compile(r"^\s*(?:\([A-Z]\)|[A-Z][.)])\s+")
# What a letter stands behind, where it is an option and not a word or a name. "A" also begins
# "a dog", so behind these it must end its clause.
_LEADS = lexicon.words_of(
    "is it's that's be get gives leaves leaving choose chose pick picked select selected say "
    "guess with not neither nor either both or and but than"
)
_TITLES = lexicon.words_of("option choice answer letter options choices answers")
_ENDS = lexicon.words_of(", . ; : ! ? ) and or but nor rather because since as is are not instead")


def option(text: str, options: Sequence[str]) -> str | None:
    """Return the one option that an answer names by its letter or its text, or None.

    A letter is named by "B" alone, "(B)", "B.", "B)", "B:", "option B" and "the answer is B", not
    by a word of a sentence ("A man"). Texts are read as classes are. What the answer denies is not
    named; what follows "the answer is" decides, where it names one.

    Args:
        text: the answer.
        options: in the order of their letters; their own "(A) " or "A. " is not part of the text.
    """
    for part in (clauses.concluded(text), text):
        named = _named(part, options, lead="is" if part is not text else "")
        if named:
            choice = named.pop() if len(named) == 1 else None
            return choice if choice in options else None
    return None


def _named(text: str, options: Sequence[str], *, lead: str) -> set[str]:
    prepared = clauses.prepared(text)
    tokens = clauses.tokens(prepared)
    texts = {_OWN_LETTER.sub("", own).strip(" .,;:!?"): own for own in options}
    texts = {bare: own for bare, own in texts.items() if bare.strip()}
    by_text = classes.mentions(clauses.lower(prepared), tokens, tuple(texts))
    inside = {place for mention in by_text for place in range(mention.first, mention.last)}
    mentions = [
        Mention(meaning=texts[str(mention.meaning)], first=mention.first, last=mention.last)
        for mention in by_text
    ]
    for place, letter in _letters(prepared, tokens, lead=lead):
        index = ord(letter) - ord("A")
        # A letter that no option has is a meaning, too: "(E) Woman" is not the woman.
        meaning = options[index] if index < len(options) else f"{letter} of {len(options)}"
        if place not in inside:
            mentions.append(Mention(meaning=meaning, first=place, last=place + 1))
    return {str(mention) for mention in denial.meant(tokens, mentions)}


def _letters(text: str, tokens: Sequence[Token], *, lead: str) -> Iterator[tuple[int, str]]:
    """Yield (place, capital) of the tokens that are letters of options."""
    words = [place for place, token in enumerate(tokens) if token.word]
    for place in words:
        token = tokens[place]
        letter = text[token.start : token.end]
        if len(letter) != 1 or not "A" <= letter.upper() <= "Z":
            continue
        before = tokens[place - 1].text if place else lead
        after = tokens[place + 1].text if place + 1 < len(tokens) else ""
        bracketed = before == "(" and after == ")"
        titled = before in _TITLES or (
            before == ":" and place > 1 and tokens[place - 2].text in _TITLES
        )
        if letter.islower():
            listed = place == 0 and after == ")"  # a bare "b" may be any word
            if bracketed or listed or (titled and after in ("", ".", ")")):
                yield place, letter.upper()
            continue
        alone = len(words) == 1
        marked = after in (".", ")", ":") and _apart(text, token)
        ends = after in _ENDS or after == ""
        led = before in _LEADS or (before in ("", ",", ".", ";", ":", "!") and ends)
        if bracketed or alone or marked or (titled and (ends or letter != "A")) or (led and ends):
            yield place, letter


def _apart(text: str, token: Token) -> bool:
    """Tell whether "B." is no part of "e.g.B." or "B.C."."""
    joined = text[token.end + 1 : token.end + 2]
    return not joined.isalnum() and text[token.start - 1 : token.start] in ("", " ", "(", ";", ":")
