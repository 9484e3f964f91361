"""The official scoring rules as pure functions, traps included; `strict.py` has the counterparts.

Sources: the evaluation scripts of LTU-AS (src/ltu_as/eval and, for FSD50K, VGGSound and AudioCaps,
src/ltu/eval), MMAU's evaluation.py and AIR-Bench's score_foundation.py.
"""

import enum
import re
import statistics
import string
import unicodedata
from collections.abc import Sequence

# Word boundaries on both sides, so "30s" has no number; "27.5" has two: 27 and 5.
_NUMBER = re.compile(r"\b\d+(?:-\d+)?\b")


class Part(enum.StrEnum):
    """The part of an answer that the official script embeds, to compare it with the labels.

    whole: all of it, as it is written (IEMOCAP).
    after_colon: lower case, after the last colon (ESC-50, GTZAN).
    after_lead_in: lower case, the text after the last "Audio caption" without its first two
        characters, ": "; an answer without the lead-in loses two as well (FSD50K, VGGSound).
    """

    WHOLE = "whole"
    AFTER_COLON = "after_colon"
    AFTER_LEAD_IN = "after_lead_in"


def embedded_label(label: str, *, frame: str, comma: str = ", ") -> str:
    """Return the text that stands for a class: "sound of {}" makes "sound of church bells".

    VGGSound's script has two spaces behind a comma: its table of labels writes "_ " for ", ", and
    it makes ", " of "_".
    """
    return frame.format(label.replace("_", " ").replace(", ", comma).lower())


def embedded_answer(answer: str, *, part: Part, frame: str) -> str:
    """Return the text that stands for an answer; a part of it gets the labels' frame, too."""
    if part is Part.WHOLE:
        return answer.lstrip()
    if part is Part.AFTER_COLON:
        return frame.format(answer.split(":")[-1].lstrip().lower())
    return frame.format(answer.replace('"', "").split("Audio caption")[-1][2:].lower())


def librispeech_answer(text: str) -> str:
    """Return what follows the last "spoken text: " in lower case, else the whole text."""
    return text.lower().rpartition("spoken text: ")[2].replace("spoken text:", "").lstrip()


def librispeech_normal(text: str) -> str:
    """Return upper case without punctuation: symbols ($ + <) stay, a hyphen joins words."""
    return "".join(c for c in text.upper() if not unicodedata.category(c).startswith("P"))


def librispeech_words(text: str) -> str:
    """Return an answer, reference or transcript as the official word error rate reads it."""
    return librispeech_normal(librispeech_answer(text))


def substituted(prediction: str, transcript: str) -> str:
    """Return Whisper's transcript where the prediction contains it, else the prediction.

    As a substring: the empty transcript is contained in everything, "GO" in "GOING HOME".
    """
    return transcript if transcript in prediction else prediction


def age_numbers(text: str) -> list[float]:
    """Return every whole number as an int, a range "30-40" as its mean, in digits of any script.

    Raises:
        ValueError: a number has more digits than Python turns into an int (4,300).
    """
    return [statistics.mean(map(int, number.split("-"))) for number in _NUMBER.findall(text)]


def gender(text: str) -> str:
    """Return "female" where the text contains it, else "male", whatever the text says."""
    return "female" if "female" in text.lower() else "male"


def audiocaps_normal(text: str) -> str:
    """Return lower case without ASCII punctuation: "well-known" is "wellknown"."""
    return text.translate(str.maketrans("", "", string.punctuation)).lower()


def audiocaps_clean(text: str) -> str:
    """Return a caption as it is scored: after the last colon minus one character, normalised.

    The character is the space after "Audio caption:"; without a colon it is the first letter.
    """
    return audiocaps_normal(text.rpartition(":")[2][1:])


def mmau_match(answer: str, output: str, choices: Sequence[str]) -> bool:
    """Tell whether the output has all words of the answer, and none of other choices alone."""
    answer_words, right = _tokens(output), _tokens(answer)
    wrong = set().union(*map(_tokens, choices)) - right
    return bool(answer_words) and right <= answer_words and not answer_words & wrong


def air_bench_letter(output: str) -> str | None:
    """Return the letter that AIR-Bench reads: the first character, else the last but one.

    So "Dog barking" chooses D. None where neither is a capital A to D; those answers are left out.
    The paper first lets GPT-3.5 turn answers into letters, at random where none fits; that step is
    not part of this rule.
    """
    output = output.strip().replace("\n", "")
    if output == "None":
        return None
    return next((c for c in (output[:1], output[-2:-1]) if c and c in "ABCD"), None)


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
