"""A voice in figures: pitch, how long it speaks, how loud; measured from the sound alone.

Pitch is the median of pYIN (Mauch and Dixon 2014) over voiced frames of speech. Speech is what
stands out of the clip's own background: frames of 20 ms above a threshold between the two levels,
pauses of up to 0.2 s, as within words, included. Its level is that of the frames above the
threshold.
"""

import dataclasses

import librosa
import numpy as np

from ltu_jax.core.axes import Float

SAMPLE_RATE = 16_000
FORMAT = 1  # of the figures: raise with any change of how they are made
LEAST_VOICED = 30  # frames of 16 ms: half a second
LEAST_CONTRAST = 12.0  # dB of speech over its background, below which the two are not told apart
_LOWEST, _HIGHEST = 60.0, 500.0  # Hz
_FRAME, _HOP = 1024, 256  # of pYIN
_STEPS = 0.2  # semitones between the frequencies that pYIN tells apart
# pYIN's own settings hold voices in plain recordings for unvoiced: of twelve real ones four had not
# half a second of voice. Thresholds of periodicity spread wider, voicing may change more often.
_THRESHOLDS, _CHANGES = (2, 10), 0.1
_POWER_FRAME = 320  # samples
_RANGE = 30.0  # dB below the loudest frames that speech has
_RISE = 0.3  # share of the way from background to speech where the threshold is
_BRIDGED = 10  # frames of a pause within speech
_SHORTEST = 3  # frames of speech
_SILENCE = 1e-10  # power, -100 dBFS


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoiceMeasures:
    """The figures of one clip.

    Attributes:
        f0_hz: median pitch of its voiced frames; None of fewer than `LEAST_VOICED`.
        speech_seconds: how long is spoken; None where speech is not told from the background.
        dbfs: level of the speech, RMS in dB of full scale; None as before.
    """

    f0_hz: float | None
    speech_seconds: float | None
    dbfs: float | None


def measure_voice(samples: Float[np.ndarray, "C"]) -> VoiceMeasures:
    """Measure samples at 16 kHz in which one person speaks."""
    samples = np.asarray(samples, np.float32)
    power = _frame_power(samples)
    threshold = _threshold(10 * np.log10(power))
    seconds = level = None
    sounding = np.ones(len(power), bool)
    if threshold is not None:
        sounding = 10 * np.log10(power) > threshold
        level = float(10 * np.log10(power[sounding].mean()))
        seconds = float(_joined(sounding).sum() * _POWER_FRAME / SAMPLE_RATE)
    return VoiceMeasures(
        f0_hz=_pitch(samples, sounding), speech_seconds=seconds or None, dbfs=level
    )


def _frame_power(samples: np.ndarray) -> np.ndarray:
    """Return the mean power of each frame; the last one is filled up with silence."""
    padded = np.pad(samples, (0, -len(samples) % _POWER_FRAME)).astype(np.float64)
    return np.mean(padded.reshape(-1, _POWER_FRAME) ** 2, axis=1) + _SILENCE


def _threshold(levels: np.ndarray) -> float | None:
    """Return the level in dB above which a frame is speech; None where nothing stands out."""
    if not len(levels):
        return None
    background, speech = np.percentile(levels, (10, 95))
    if speech - background < LEAST_CONTRAST:
        return None
    return float(max(speech - _RANGE, background + _RISE * (speech - background)))


def _joined(sounding: np.ndarray) -> np.ndarray:
    """Return which frames are spoken: short pauses are, clicks are not."""
    spoken = sounding.copy()
    for start, end in _runs(~sounding):
        if start > 0 and end < len(spoken) and end - start <= _BRIDGED:
            spoken[start:end] = True
    for start, end in _runs(spoken):
        if end - start < _SHORTEST:
            spoken[start:end] = False
    return spoken


def _runs(flags: np.ndarray) -> np.ndarray:
    """Return [start, end] of each run of true values."""
    return np.flatnonzero(np.diff(np.r_[False, flags, False])).reshape(-1, 2)


def _pitch(samples: np.ndarray, sounding: np.ndarray) -> float | None:
    """Return the median pitch of voiced frames that are in sounding ones."""
    if len(samples) < _FRAME:
        return None
    pitch, voiced, _ = librosa.pyin(
        samples, fmin=_LOWEST, fmax=_HIGHEST, sr=SAMPLE_RATE, frame_length=_FRAME, hop_length=_HOP,
        resolution=_STEPS, beta_parameters=_THRESHOLDS, switch_prob=_CHANGES,
    )  # fmt: skip
    places = np.minimum(np.arange(len(pitch)) * _HOP // _POWER_FRAME, len(sounding) - 1)
    heard = pitch[voiced & sounding[places]]
    return float(np.median(heard)) if len(heard) >= LEAST_VOICED else None
