"""Signal blocks at 16 kHz: tones, noise, resonances, envelopes, rooms, levels, mixing."""

import numpy as np
from numpy.random import Generator
from scipy import signal

from data_pipelines.measures.levels import active_rms

SAMPLE_RATE = 16_000


def path(start: float, middle: float, end: float, *, m: int) -> np.ndarray:
    """Return a smooth curve of `m` points through three values at 0, 0.45 and 1."""
    return np.interp(np.linspace(0, 1, m), [0.0, 0.45, 1.0], [start, middle, end])


def hump(m: int, center: float) -> np.ndarray:
    """Return a rise from 0 to 1 at the share `center` of `m` points, and back to 0, with zero slope
    at all three.
    """
    x = np.linspace(0, 1, m)
    y = np.where(x < center, x / center, (1 - x) / (1 - center))
    return 0.5 - 0.5 * np.cos(np.pi * y)


def decay(m: int, *, attack: float, rate: float) -> np.ndarray:
    """Return a linear rise of `attack` seconds, then an exponential fall of `rate` per second."""
    t = np.arange(m) / SAMPLE_RATE
    return np.minimum(1.0, t / attack) * np.exp(-rate * np.maximum(0.0, t - attack))


def harmonics(f0: np.ndarray, *, count: int, slope: float) -> np.ndarray:
    """Return `count` harmonics of the frequency curve `f0` in Hz, amplitude k**-slope, silent above
    7.5 kHz.
    """
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    out = np.zeros(len(f0))
    for k in range(1, count + 1):
        out += k**-slope * np.sin(k * phase) * (k * f0 < 7500)
    return out


def band_noise(rng: Generator, n: int, low: float, high: float) -> np.ndarray:
    """Draw white noise between `low` and `high` Hz."""
    sos = signal.butter(2, [low, min(high, 7600)], btype="band", fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sos, rng.standard_normal(n))


def resonate(samples: np.ndarray, centers: tuple[float, ...], *, width: float) -> np.ndarray:
    """Add resonances at `centers` Hz, each `width` Hz wide, and a little of the dry signal."""
    out = 0.1 * samples
    for index, center in enumerate(centers):
        b, a = signal.iirpeak(min(center, 7000), min(center, 7000) / width, fs=SAMPLE_RATE)
        out = out + signal.lfilter(b, a, samples) / (1 + index)
    return out


def bell(n: int, frequency: float, partials: tuple[float, ...], *, rate: float) -> np.ndarray:
    """Return partials of `frequency` that die at `rate` per second, the higher the faster."""
    t = np.arange(n) / SAMPLE_RATE
    out = np.zeros(n)
    for index, partial in enumerate(partials):
        if frequency * partial < 7600:
            fade = np.exp(-rate * (1 + 0.45 * index) * t)
            out += np.sin(2 * np.pi * frequency * partial * t + index) * fade / (1 + 0.5 * index)
    return out


def place(out: np.ndarray, samples: np.ndarray, at: int) -> None:
    """Add `samples` to `out` from index `at`, cut at its end."""
    stop = min(len(out), at + len(samples))
    out[at:stop] += samples[: stop - at]


def room(rng: Generator, samples: np.ndarray, *, amount: float) -> np.ndarray:
    """Add reverberation: convolve with exponentially dying noise of 0.1-0.35 s, `amount` of the dry
    level.
    """
    n = int(rng.uniform(0.1, 0.35) * SAMPLE_RATE)
    tail = rng.standard_normal(n) * np.exp(-np.linspace(0, 6, n))
    wet = signal.fftconvolve(samples, tail)[: len(samples)]
    return samples + amount * wet * (rms(samples) / (rms(wet) + 1e-9))


def tilt(rng: Generator, samples: np.ndarray) -> np.ndarray:
    """Colour the spectrum as another microphone would: a random first-order shelf of up to 6 dB
    each way.
    """
    a = rng.uniform(-0.35, 0.35)
    return signal.lfilter([1.0, a], [1.0], samples)


def pink_noise(rng: Generator, n: int) -> np.ndarray:
    """Draw noise that falls 3 dB per octave, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 30.0))
    noise = np.fft.irfft(spectrum, n)
    return noise / rms(noise)


def rms(samples: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def with_level(samples: np.ndarray, *, dbfs: float) -> np.ndarray:
    """Scale so that `active_rms` is `dbfs` decibels of full scale, lower when a peak would pass
    0.98.
    """
    samples = samples * (10 ** (dbfs / 20) / (active_rms(samples) + 1e-9))
    return samples * min(1.0, 0.98 / (np.abs(samples).max() + 1e-9))


def with_noise_floor(rng: Generator, samples: np.ndarray, *, snr_db: float) -> np.ndarray:
    """Add pink noise `snr_db` decibels below the active signal."""
    level = active_rms(samples) * 10 ** (-snr_db / 20)
    return samples + level * pink_noise(rng, len(samples))


def mix(speech: np.ndarray, background: np.ndarray, *, snr_db: float) -> np.ndarray:
    """Mix speech and a background of one length, active levels `snr_db` decibels apart."""
    gain = active_rms(speech) / (active_rms(background) + 1e-9) * 10 ** (-snr_db / 20)
    return speech + gain * background
