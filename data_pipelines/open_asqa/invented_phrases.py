"""The phrases that a Whisper writes over silence and noise, where nobody speaks.

Whatever it writes there is invented. Such lists belong to one model: they are kept by the hash of
its weights. Those of tiny.en and base are in invented_phrases.json, as lists that were made by

    python -m data_pipelines.open_asqa harvest --model assets/weights/whisper-tiny.en --out FILE
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines.open_asqa.clip_journal import ClipJournal
from data_pipelines.open_asqa.clip_whisper import ClipWhisper
from data_pipelines.open_asqa.spoken_text_filter import HeardWindow, loops, sentences
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError

SAMPLE_RATE = 16_000
FORMAT = 1  # of the list and of the noises
CLIPS = 54
_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
_LEVELS = (-70.0, -55.0, -40.0, -28.0, -18.0, -10.0)  # dBFS
_SLOPES = {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0}  # power falls as f**-slope


def noise(number: int, *, seed: int) -> Float[np.ndarray, "C"]:
    """Make a clip at 16 kHz in which nobody speaks: silence, noise, hum, tones, clicks or gusts."""
    kinds = (_silence, *(functools.partial(_coloured, slope=s) for s in _SLOPES.values()),
             _band, _hum, _tones, _clicks, _gusts)  # fmt: skip
    rng = np.random.default_rng((seed, number))
    length = int(SAMPLE_RATE * _SECONDS[number // len(kinds) % len(_SECONDS)])
    samples = kinds[number % len(kinds)](rng, length)
    power = np.sqrt(np.mean(np.square(samples)))
    level = 10 ** (rng.choice(_LEVELS) / 20)
    return np.clip(samples * (level / power if power else 0.0), -1, 1).astype(np.float32)


def _silence(rng: np.random.Generator, length: int) -> np.ndarray:
    del rng
    return np.zeros(length)


def _coloured(rng: np.random.Generator, length: int, *, slope: float) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    return np.fft.irfft(spectrum * hertz ** (-slope / 2), length)


def _band(rng: np.random.Generator, length: int) -> np.ndarray:
    """Make noise between two frequencies."""
    low, high = np.sort(rng.uniform(50, 7_500, 2))
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * ((hertz >= low) & (hertz <= high + 100)), length)


def _hum(rng: np.random.Generator, length: int) -> np.ndarray:
    """Make the hum of mains with its harmonics, and some hiss."""
    time = np.arange(length) / SAMPLE_RATE
    base = rng.choice((50.0, 60.0))
    hum = sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, 8))
    return hum + 0.02 * rng.standard_normal(length)


def _tones(rng: np.random.Generator, length: int) -> np.ndarray:
    """Make three tones, two of which glide."""
    time = np.arange(length) / SAMPLE_RATE
    glides = rng.uniform(-0.3, 0.3, 3) * (0, 1, 1)
    bases = rng.uniform(100, 3_000, 3)
    return sum(
        np.sin(2 * np.pi * base * (time + glide * time**2 / max(time[-1], 1.0)))
        for base, glide in zip(bases, glides, strict=True)
    )


def _clicks(rng: np.random.Generator, length: int) -> np.ndarray:
    """Make clicks that ring for a few milliseconds, over faint hiss."""
    out = 0.01 * rng.standard_normal(length)
    ring = np.exp(-np.arange(160) / 30) * np.sin(np.arange(160) * rng.uniform(0.2, 1.5))
    for start in rng.integers(0, length - 160, size=max(1, length // 8_000)):
        out[start : start + 160] += ring * rng.uniform(0.3, 1.0)
    return out


def _gusts(rng: np.random.Generator, length: int) -> np.ndarray:
    """Make noise that swells and fades about as fast as syllables and sentences do."""
    time = np.arange(length) / SAMPLE_RATE
    swell = 1.0 + np.sin(2 * np.pi * rng.uniform(0.2, 5.0) * time + rng.uniform(0, 6))
    return _coloured(rng, length, slope=1.0) * swell


def harvest(
    whisper: ClipWhisper, journal: ClipJournal, *, workers: int, clips: int = CLIPS, seed: int = 0
) -> dict[str, Any]:
    """Let a model hear noises; return what it wrote as a list of phrases.

    Args:
        whisper: the model.
        journal: what it wrote so far.
        workers: threads that make noises ahead.
        clips, seed: how many noises, and which.
    """
    noises = (
        (f"noise/{FORMAT}/{seed}/{number}", functools.partial(noise, number, seed=seed))
        for number in range(clips)
    )
    phrases: dict[str, dict[str, Any]] = {}
    with tqdm(desc="words invented over noise", total=clips, unit="clip", disable=None) as bar:
        for result in whisper.hear(noises, journal, workers=workers):
            bar.update()
            windows = (HeardWindow(**window) for window in result["windows"])
            once = {}  # of a clip: sentence -> least no-speech probability
            for window in windows:
                for words in () if loops(window) else sentences(window.text):
                    once[words] = min(window.no_speech_prob, once.get(words, 1.0))
            for words, probability in once.items():
                entry = phrases.setdefault(words, {"clips": 0, "no_speech_prob": 1.0})
                entry["clips"] += 1
                entry["no_speech_prob"] = min(entry["no_speech_prob"], probability)
    return {
        "format": FORMAT,
        "model": whisper.named,
        "sha256": whisper.sha256,
        "seed": seed,
        "clips": clips,
        "phrases": dict(sorted(phrases.items(), key=lambda item: (-item[1]["clips"], item[0]))),
    }


def read(path: Path, *, sha256: str) -> dict[str, Any]:
    """Read a list of `harvest`.

    Raises:
        UserError: it is none, or of another model.
    """
    try:
        entry = json.loads(path.read_bytes())
        belongs, _ = entry["sha256"], by_probability(entry)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"--phrases {path} cannot be read ({error}): give a file that "
            "`python -m data_pipelines.open_asqa harvest` wrote"
        ) from None
    if belongs != sha256:
        raise UserError(
            f"--phrases {path} is of {entry.get('model')}, whose weights are others: make a list "
            "of this --model with `python -m data_pipelines.open_asqa harvest`"
        )
    return entry


def by_probability(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return phrase -> least no-speech probability that it was written with."""
    return {text: about["no_speech_prob"] for text, about in entry["phrases"].items()}


def packaged(sha256: str) -> dict[str, Any] | None:
    """Return the list of a model that comes with this package; None for other models."""
    text = resources.files(__package__).joinpath("invented_phrases.json").read_text()
    return next((entry for entry in json.loads(text) if entry["sha256"] == sha256), None)
