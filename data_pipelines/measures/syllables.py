"""Syllables of a text."""

import re

_VOWELS = re.compile(r"[aeiouy]+")
# Endings whose e is spoken: table, painted, boxes, bridges.
_SOUNDED_ENDINGS = ("le", "les", "ted", "ded", "ses", "ces", "ges", "xes", "zes", "ches", "shes")


def syllables(text: str) -> int:
    """Count syllables of an English text by vowel groups, with silent final e and -ed, at least one
    a word.
    """
    total = 0
    for word in re.findall(r"[a-z']+", text.lower()):
        count = len(_VOWELS.findall(word))
        if word.endswith(("e", "es", "ed")) and not word.endswith(_SOUNDED_ENDINGS):
            count -= 1
        total += max(1, count)
    return total
