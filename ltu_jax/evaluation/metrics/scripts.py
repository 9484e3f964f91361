"""Words of any language: one spelling for quotes and forms of letters, and what parts words.

OpenAI's English normaliser writes numbers out, resolves contractions and takes accents away, which
is wrong for other languages ("um" is no hesitation in German). Texts that are not English are read
by rules that no language contradicts: case, punctuation and composition do not count, accents do.
Where a script puts no space between words, each character counts as one.
"""

import re
import unicodedata
from collections.abc import Sequence

import simplemma

_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u02b9\u00b4\u2032`\uff07\u2035", "'")
_DOUBLE = dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\uff02\u00ab\u00bb", '"')
_HYPHENS = dict.fromkeys("\u2010\u2011\u2012\u2212", "-")
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_ONE_SPELLING = str.maketrans(
    {**_FULL_WIDTH, "\u3000": " ", "\u2026": "...", **_QUOTES, **_DOUBLE, **_HYPHENS}
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# Han, kana, Thai, Lao, Khmer, Myanmar: no spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U000323af]"
)
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")
_BRACKETED = re.compile(r"[<\[][^<\[>\]]*[>\]]|\([^()]*\)")
_WORD = re.compile(r"[^\W\d_]+")
_ENDING = re.compile(r"'(?:s|t|ve|re|m|d|ll|all)\b|n't\b", re.IGNORECASE)
# Shares of words that an English dictionary has: 1.0 for plain English, below 0.7 for others.
_ENGLISH_WORDS = 0.75
_ACCENTED = 0.03


def one_spelling(text: str) -> str:
    """Return the text with straight quotes, half-width letters and nothing invisible."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text).translate(_ONE_SPELLING))


def latin(text: str) -> bool:
    """Tell whether at least half of the letters are Latin; a text without letters counts so."""
    letters = [c for c in text if c.isalpha()]
    return 2 * len(_LATIN.findall("".join(letters))) >= len(letters)


def english(texts: Sequence[str]) -> bool:
    """Tell whether texts together are English by their letters and a dictionary's words."""
    joined = one_spelling(" ".join(texts))
    if not latin(joined):
        return False
    latin_words = [word.lower() for word in _WORD.findall(_ENDING.sub("", joined)) if latin(word)]
    if not latin_words:
        return True
    letters = "".join(latin_words)
    if sum(not c.isascii() for c in letters) > _ACCENTED * len(letters):
        return False
    known = {word: simplemma.is_known(word, lang="en") for word in set(latin_words)}
    return sum(known[word] for word in latin_words) >= _ENGLISH_WORDS * len(latin_words)


def unspaced(texts: Sequence[str]) -> bool:
    """Tell whether a text has letters of a script without spaces, whose characters are counted."""
    return any(_UNSPACED.search(text) for text in texts)


def neutral_words(text: str) -> list[str]:
    """Return the words of a text in any language, and each character of unspaced scripts.

    Case, punctuation, symbols and what stands in brackets (as in Whisper's normalisers) are not
    part of any; an apostrophe or an accent inside a word is.
    """
    text = unicodedata.normalize("NFKC", _BRACKETED.sub(" ", one_spelling(text))).casefold()
    pieces = []
    for place, c in enumerate(unicodedata.normalize("NFC", text)):
        kind = unicodedata.category(c)[0]
        if _UNSPACED.match(c) and kind != "M":
            pieces.append(f" {c}" if kind in "LN" else " ")
        elif c == "'" and 0 < place < len(text) - 1:
            pieces.append("'")
        elif kind in "LNM":
            # Behind a character that is a word by itself another word begins.
            parts = kind != "M" and place > 0 and _UNSPACED.match(text[place - 1])
            pieces.append(f" {c}" if parts else c)
        else:
            pieces.append(" ")
    return [word for own in "".join(pieces).split() if (word := own.strip("'"))]
