"""Make the samples of planned windows: recordings cut, strung together, levelled and added."""

from collections.abc import Callable

import numpy as np

from data_pipelines.measures.levels import active_rms
from data_pipelines.real.window_plan import SECONDS, NoiseLayer, PlannedWindow, SoundLayer
from ltu_jax.core.axes import Float

SAMPLE_RATE = 16_000
_LENGTH = round(SECONDS * SAMPLE_RATE)
_PEAK = 0.9
_LOWEST = 20.0  # Hz of noise
_FADE = 80  # samples at both ends of a part that is cut

Load = Callable[[str], Float[np.ndarray, "C"]]


def mix(window: PlannedWindow, *, load: Load, load_speech: Load) -> Float[np.ndarray, "C"]:
    """Return ten seconds of a window, 16 kHz; its loudest sample is 0.9, or all is silence.

    Noise without a voice is as loud as planned.

    Args:
        window: its plan.
        load: name of a recording -> its samples.
        load_speech: the same of what is said.
    """
    sounds = np.zeros(_LENGTH)
    for layer in window.layers:
        placed = _placed(_sequence(layer, load), layer.start)
        sounds += placed * 10 ** (layer.decibels / 20)
    if window.noise is not None:
        sounds = _noise(window.noise)
        if not window.speech:
            return (sounds * 10 ** (window.noise.decibels / 20)).astype(np.float32)
    if window.speech:
        voice = _placed(_to_peak(load_speech(window.speech)), window.speech_start)
        above = 10 ** (window.speech_decibels / 20)
        sounds = sounds * (active_rms(voice) / max(active_rms(sounds), 1e-9) / above) + voice
    return (_to_peak(sounds) * _PEAK).astype(np.float32)


def _noise(noise: NoiseLayer) -> np.ndarray:
    """Return noise whose loudest sample is 1, without what lies below 20 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(noise.seed).standard_normal(_LENGTH))
    hertz = np.fft.rfftfreq(_LENGTH, 1 / SAMPLE_RATE)
    spectrum *= (hertz >= _LOWEST) / np.maximum(hertz, _LOWEST) ** (noise.slope / 2)
    return _to_peak(np.fft.irfft(spectrum, _LENGTH))


def _sequence(layer: SoundLayer, load: Load) -> np.ndarray:
    """Return the recordings of a layer one after the other, each with its loudest sample at 1."""
    pieces = [_to_peak(_part(load(layer.clips[0]), layer.part))]
    for gap, clip in zip(layer.gaps, layer.clips[1:], strict=True):
        pieces += [np.zeros(round(gap * SAMPLE_RATE)), _to_peak(_part(load(clip), layer.part))]
    return np.concatenate(pieces)


def _part(samples: np.ndarray, where: float) -> np.ndarray:
    """Return at most ten seconds of a recording, faded where it is cut."""
    if len(samples) <= _LENGTH:
        return np.asarray(samples, float)
    first = int(where * (len(samples) - _LENGTH))
    part = np.array(samples[first : first + _LENGTH], float)
    ramp = np.linspace(0, 1, _FADE)
    part[:_FADE] *= ramp
    part[-_FADE:] *= ramp[::-1]
    return part


def _placed(samples: np.ndarray, start: float) -> np.ndarray:
    """Return samples within ten seconds of silence; what reaches beyond them is cut off."""
    result = np.zeros(_LENGTH)
    first = round(start * SAMPLE_RATE)
    fits = samples[: max(0, _LENGTH - first)]
    result[first : first + len(fits)] = fits
    return result


def _to_peak(samples: np.ndarray) -> np.ndarray:
    loudest = np.abs(samples).max(initial=0.0)
    return samples / loudest if loudest > 0 else samples
