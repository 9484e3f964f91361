"""What of Whisper's text is kept as the spoken text of a clip, and why not the rest.

Whisper writes words over silence, barking and music. The rules, in their order, each on a window of
up to 30 s (language on the clip):

    no words      nothing that a person could say
    no_speech     Whisper itself hears no speech; of music "no vocals"
    logprob       the text is unlikely
    language      spoken in none of the languages that are wanted
    loop          a phrase over and over
    phrase        nothing but phrases that this Whisper writes over noise, without clear speech
    thanks        nothing but the official phrases, "Thanks for watching" and its like

`compat` is what the official code does: it cuts those phrases and nothing else, from the text that
OpenAI's Whisper gives, which leaves out windows that it holds for silent.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ltu_jax.generation.transcription import OPENAI
from ltu_jax.preprocessing.text import remove_thanks

MODES = ("ours", "compat")
ANY_LANGUAGE = "any"
_LEAST_PHRASES, _LEAST_WORDS = 3, 5  # repeats of a phrase, and of one word: people say no, no, no
_LOOP_SHARE = 0.5  # of the words of a text
_LONGEST_PHRASE = 20  # words
# Text that Whisper is known to invent needs better evidence of speech than other text.
_DOUBT = 0.5
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002])\s+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeardWindow:
    """Text of a window of up to 30 s, and the figures of its decoding."""

    text: str
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedClip:
    """All that Whisper wrote of a clip: windows without text are not among the `windows`."""

    text: str
    language: str
    windows: Sequence[HeardWindow]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterRules:
    """What is asked of a text.

    Attributes:
        mode: one of `MODES`.
        no_speech: largest no-speech probability.
        logprob: least mean log probability of a token.
        languages: codes of the wanted ones; `ANY_LANGUAGE` among them for all.
        phrases: what this Whisper writes over noise, as `plain` gives it, and the least no-speech
            probability that it was written with.
    """

    mode: str
    no_speech: float
    logprob: float
    languages: Sequence[str]
    phrases: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpokenText:
    """The text that is kept; why nothing was, else ""; how many windows were left out."""

    text: str
    reason: str
    windows_left_out: int = 0


def spoken_text(
    heard: TranscribedClip, rules: FilterRules, *, music: bool = False, vocals: bool = False
) -> SpokenText:
    """Return what is kept of a clip's text.

    Args:
        heard: what Whisper wrote.
        rules: what is asked of it.
        music: whether the clip is music, of which the text is lyrics.
        vocals: whether somebody is known to sing, so that the no-speech probability says nothing.
    """
    check = _silent if rules.mode == "compat" else _reason
    reasons = [check(window, rules, heard.language, vocals=vocals) for window in heard.windows]
    kept = [
        window.text for window, reason in zip(heard.windows, reasons, strict=True) if not reason
    ]
    if not kept:
        reason = reasons[0] if reasons else "no words"
        return SpokenText(
            text="",
            reason="no vocals" if music and reason == "no_speech" else reason,
            windows_left_out=len(reasons),
        )
    left_out = len(reasons) - len(kept)
    text = remove_thanks(" ".join(kept) if left_out else heard.text)
    # The official code leaves what is behind the cut as it is.
    text = text.lstrip() if rules.mode == "compat" else text.strip()
    words = bool(text if rules.mode == "compat" else _WORD.search(text))
    return SpokenText(
        text=text if words else "", reason="" if words else "thanks", windows_left_out=left_out
    )


def _silent(window: HeardWindow, rules: FilterRules, language: str, *, vocals: bool) -> str:
    """Return whether OpenAI's Whisper gives no text of a window."""
    del rules, language, vocals
    silent = window.no_speech_prob > OPENAI.no_speech_limit
    return "no_speech" if silent and window.avg_logprob <= OPENAI.logprob_limit else ""


def _reason(window: HeardWindow, rules: FilterRules, language: str, *, vocals: bool) -> str:
    """Return the first rule that a window breaks; "" for none."""
    if not _WORD.search(window.text):
        return "no words"
    if window.no_speech_prob > rules.no_speech and not vocals:
        return "no_speech"
    if window.avg_logprob < rules.logprob:
        return "logprob"
    if not {language, ANY_LANGUAGE} & set(rules.languages):
        return "language"
    if loops(window):
        return "loop"
    known = [rules.phrases.get(part) for part in sentences(window.text)]
    if all(least is not None for least in known):
        limit = min(_DOUBT * rules.no_speech, *known)
        if window.no_speech_prob >= limit:
            return "phrase"
    return ""


def plain(text: str) -> str:
    """Return the words of a text alone, in lower case."""
    return " ".join(_WORD.findall(text.lower()))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text by their words alone."""
    parts = [plain(part) for part in _SENTENCE_END.split(text)]
    return [part for part in parts if part]


def loops(window: HeardWindow) -> bool:
    """Return whether a text goes round: by its own words, or as OpenAI's Whisper tells."""
    repeats = window.compression_ratio > OPENAI.compression_ratio_limit
    return repeats or repeats_itself(window.text)


def repeats_itself(text: str) -> bool:
    """Return whether half of a text or more is one phrase over and over.

    A phrase of two words or more counts from three times on, a word alone from five.
    """
    words = plain(text).split()
    for size in range(1, min(_LONGEST_PHRASE, len(words) // _LEAST_PHRASES) + 1):
        least = _LEAST_WORDS if size == 1 else _LEAST_PHRASES
        run = 0  # words in a row that are those of one phrase before
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            covered = run + size
            if covered >= least * size and covered >= _LOOP_SHARE * len(words):
                return True
    return False
