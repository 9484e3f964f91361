"""Word errors of spoken text: normalised words, edit distance, quoted words."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.metrics import scripts

# The marker of the closed-ended answers, which the official score of spoken text splits at too.
_MARKER = re.compile(r"\bspoken text\s*:", re.IGNORECASE)
# Other introductions: `A female voice says: hello`.
_SAYING = r"\b(?:text|words?|says?|said|saying|transcript(?:ion)?)\b"
_LEAD_IN = re.compile(
    rf"^[^:\"]{{0,60}}(?:{_SAYING}|\b(?:speech|speaker|heard|voice)\b)[^:\"]{{0,40}}:",
    re.IGNORECASE,
)
# What makes it none, unless it tells that something is said: `Speaker gender: female.`, which is an
# answer of Open-ASQA.
_ATTRIBUTE = re.compile(
    r"\b(?:gender|sex|age|accent|dialect|language|pitch|speed|pace|rate|tempo|volume|loudness|energy|"
    r"tone|style|emotion|mood|sentiment|polarity|score|class|category|labels?|number|sounds?)\b",
    re.IGNORECASE,
)
_CURLY = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02\u300c\u300d\u300e\u300f", '"')
    | {"\uff1a": ":"}
)


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


def words(text: str, *, english: bool = True) -> list[str]:
    """Return the words of `text` after OpenAI Whisper's English normaliser.

    Of a text that is not English, those of `scripts.neutral_words`. Typographic quotes, full-width
    letters and decomposed accents are those of the plain spelling.
    """
    if not english:
        return scripts.neutral_words(text)
    text = scripts.one_spelling(text)
    return _normaliser()(text if len(text) < _LONG else _bearable(text)).split()


# What no model says, but a file of predictions may hold: characters, and digits of one number.
_LONG, _DIGITS = 4_000, 4_000


def _bearable(text: str) -> str:
    """Return a very long text that the normaliser can bear.

    It fails at numbers that Python does not read (4,300 digits) and takes the square of the length
    for brackets that nothing closes. The number stays one word, and such brackets are part of none.
    """
    text = re.sub(rf"\d{{{_DIGITS},}}", lambda number: number.group()[:_DIGITS], text)
    for closing, opening in ((r"[>\]]", r"[<\[]"), (r"\)", r"\(")):
        end = max((match.end() for match in re.finditer(closing, text)), default=0)
        text = text[:end] + re.sub(opening, " ", text[end:])
    return text


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the least number of substituted, inserted and deleted words between two lists."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(hypothesis, start=1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != word)),
            )
    return row[-1]


def word_error_counts(reference: str, hypothesis: str, *, english: bool = True) -> tuple[int, int]:
    """Return (edits, reference words) of normalised texts; their sums give a corpus's error rate.

    A reference in another script than the Latin one is read as `english=False` reads it.
    """
    english = english and scripts.latin(reference)
    expected = words(reference, english=english)
    return word_errors(expected, words(hypothesis, english=english)), len(expected)


def spoken_words(answer: str) -> str:
    """Return the spoken text that an answer reports, without the sentence around it.

    What follows "spoken text:"; else what stands in double quotes (from the first to the last, or
    to the end if the answer was cut off); else what follows an introduction such as "A male voice
    says:", but not the name of an attribute such as "Speaker gender:"; else the whole answer.
    """
    return _split(answer)[0].strip()


def around_words(answer: str) -> str:
    """Return the answer without its spoken text, so that a word said aloud names no class.

    An answer that does not mark where the spoken text stands is returned whole.
    """
    return _split(answer)[1].strip()


def _split(answer: str) -> tuple[str, str]:
    """Return (spoken text, what stands around it), both the whole answer if nothing marks it."""
    answer = answer.translate(_CURLY)
    if marker := _MARKER.search(answer):
        return answer[marker.end() :], answer[: marker.start()]
    if '"' in answer:
        start, end = answer.index('"'), answer.rindex('"')
        if end == start:
            return answer[start + 1 :], answer[:start]
        return answer[start + 1 : end], answer[:start] + answer[end + 1 :]
    lead_in = _LEAD_IN.match(answer)
    if lead_in and (
        re.search(_SAYING, lead_in.group(), re.IGNORECASE) or not _ATTRIBUTE.search(lead_in.group())
    ):
        return answer[lead_in.end() :], lead_in.group()
    return answer, answer


def chance_word_error_rate(references: Sequence[str]) -> float:
    """Return the lowest word error rate of a constant answer: silence, or one of the references.

    Of more than `_GUESSES` different references those are tried whose words, in whatever order, the
    others have most of.

    Raises:
        ValueError: no reference has a word.
    """
    english = scripts.english(references)
    numbers: dict[str, int] = {}
    split = [
        [
            numbers.setdefault(word, len(numbers))
            for word in words(text, english=english and scripts.latin(text))
        ]
        for text in references
    ]
    total = sum(map(len, split))
    if total == 0:
        raise ValueError("no reference has a word: a word error rate needs spoken references")
    lengths = np.array([len(text) for text in split])
    having: dict[int, list[int]] = {}  # word -> how often each reference has it, zeros left out
    for text in split:
        for word, count in Counter(text).items():
            having.setdefault(word, []).append(count)

    def least_errors(guess: Sequence[int]) -> int:
        """Return a lower bound: no more words match in place than two texts have in common."""
        common = sum(min(own, n) for word, own in Counter(guess).items() for n in having[word])
        return int(np.maximum(lengths, len(guess)).sum()) - common

    best = total  # silence: every word is missing
    guesses = sorted(
        {tuple(text) for text in split}, key=lambda candidate: (least_errors(candidate), candidate)
    )
    for guess in guesses[:_GUESSES]:
        if least_errors(guess) < best:
            best = min(best, _total_errors(split, guess))
    return best / total


_GUESSES = 200  # constant answers tried


def _total_errors(references: Sequence[Sequence[int]], guess: Sequence[int]) -> int:
    """Return the sum of `word_errors` of one guess for all references, computed together."""
    longest = max(map(len, references))
    padded = np.array([[*text, *[-1] * (longest - len(text))] for text in references], np.int32)
    steps = np.arange(longest + 1)
    row = np.broadcast_to(steps, (len(references), longest + 1))  # [reference, words read]
    for word in guess:
        best = row + 1
        np.minimum(best[:, 1:], row[:, :-1] + (padded != word), out=best[:, 1:])
        # To read a word more of a reference costs one more: the least of all to the left.
        row = np.minimum.accumulate(best - steps, axis=1) + steps
    return int(row[np.arange(len(row)), [len(text) for text in references]].sum())
