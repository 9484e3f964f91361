"""Word errors of spoken text: the Whisper English normaliser, edit distance, quoted words."""

import functools
import re
from collections.abc import Callable, Sequence

from ltu_jax.core.errors import UserError

# The marker of the closed-ended answers, which the official score of spoken text splits at too.
_MARKER = re.compile(r"\bspoken text\s*:", re.IGNORECASE)
# Other introductions: `A female voice says: hello`.
_LEAD_IN = re.compile(
    r"^[^:\"]{0,60}\b(?:text|words?|says?|said|saying|speech|speaker|transcript(?:ion)?|heard|voice)"
    r"\b[^:\"]{0,40}:",
    re.IGNORECASE,
)
_CURLY = str.maketrans({"\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"'})


@functools.cache
def _normaliser() -> Callable[[str], str]:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise UserError(
            "word error rates need the package 'whisper-normalizer' (OpenAI's English normaliser): "
            "pip install whisper-normalizer"
        ) from error
    return EnglishTextNormalizer()


def words(text: str) -> list[str]:
    """The words of `text` after OpenAI Whisper's English normaliser (case, numbers, spelling)."""
    return _normaliser()(text).split()


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Least number of substituted, inserted and deleted words between two word lists."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, start=1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != found)),
            )
    return row[-1]


def word_error_counts(reference: str, hypothesis: str) -> tuple[int, int]:
    """(edits, reference words) of normalised texts; their sums give the corpus word error rate."""
    expected = words(reference)
    return word_errors(expected, words(hypothesis)), len(expected)


def spoken_words(answer: str) -> str:
    """The spoken text that an answer reports, its own sentence around it taken away.

    What follows "spoken text:"; else what stands in double quotes (from the first to the last, or
    to the end if the answer was cut off); else what follows an introduction such as "A male voice
    says:"; else the whole answer.
    """
    return _split(answer)[0].strip()


def around_words(answer: str) -> str:
    """The answer without its spoken text, so that a word said aloud names no class.

    An answer that does not mark where the spoken text stands is returned whole.
    """
    return _split(answer)[1].strip()


def _split(answer: str) -> tuple[str, str]:
    """(spoken text, what stands around it); where nothing marks it, both are the whole answer."""
    answer = answer.translate(_CURLY)
    if marker := _MARKER.search(answer):
        return answer[marker.end() :], answer[: marker.start()]
    if '"' in answer:
        start, end = answer.index('"'), answer.rindex('"')
        if end == start:
            return answer[start + 1 :], answer[:start]
        return answer[start + 1 : end], answer[:start] + answer[end + 1 :]
    if lead_in := _LEAD_IN.match(answer):
        return answer[lead_in.end() :], lead_in.group()
    return answer, answer


def chance_word_error_rate(references: Sequence[str]) -> float:
    """Lowest word error rate of any constant answer: silence, or one of the references for all."""
    split = [words(text) for text in references]
    total = sum(map(len, split))
    if total == 0:
        raise ValueError("no reference has a word: a word error rate needs spoken references")
    distinct = {tuple(text) for text in split}
    return min(
        sum(word_errors(expected, guess) for expected in split) / total
        for guess in [(), *sorted(distinct)]
    )
