"""Speaking style, pitch, pace and loudness, measured from the sound, not copied from its script."""

import dataclasses
import re

import librosa
import numpy as np

SAMPLE_RATE = 16_000
_FRAME, _HOP = 1024, 256
_VOWELS = re.compile(r"[aeiouy]+")
# Endings whose e is spoken: table, painted, boxes, bridges.
_SOUNDED_ENDINGS = ("le", "les", "ted", "ded", "ses", "ces", "ges", "xes", "zes", "ches", "shes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """`f0_hz` median pitch of voiced frames, `syllables_per_second` of speech, `dbfs` RMS level of
    the clip.
    """

    f0_hz: float
    syllables_per_second: float
    dbfs: float


def style(samples: np.ndarray, *, text: str) -> Style:
    """Measure clean speech [C] at 16 kHz that says `text`.

    Pitch is the median of librosa's YIN over frames within 20 dB of the loudest; pace is the number
    of syllables of `text` over the length librosa leaves after trimming silence (30 dB); level is
    the RMS of that trimmed part.
    """
    speech, _ = librosa.effects.trim(samples, top_db=30, frame_length=_FRAME, hop_length=_HOP)
    pitch = librosa.yin(
        speech, fmin=60, fmax=420, sr=SAMPLE_RATE, frame_length=_FRAME, hop_length=_HOP
    )
    level = librosa.feature.rms(y=speech, frame_length=_FRAME, hop_length=_HOP)[0]
    count = min(len(pitch), len(level))
    voiced = level[:count] > 0.1 * level.max()
    return Style(
        f0_hz=float(np.median(pitch[:count][voiced])),
        syllables_per_second=syllables(text) * SAMPLE_RATE / len(speech),
        dbfs=float(20 * np.log10(np.sqrt(np.mean(speech**2)) + 1e-9)),
    )


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
