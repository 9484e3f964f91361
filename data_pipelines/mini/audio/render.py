"""From a plan entry to samples: synthesis, mixing, measuring, and the FLAC file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_pipelines.measures.speaking_style import SpeakingStyle, speaking_style
from data_pipelines.measures.voice_measures import measure_voice
from data_pipelines.mini import clip_plan
from data_pipelines.mini.audio import animals, music, sounds, synthesis, voices
from ltu_jax.core import files

SAMPLE_RATE = 16_000
FORMAT = (
    3  # raise when a change of the code makes clips, measures or questions of older corpora invalid
)
_TEMPO = {"slow": (0.72, 0.82), "normal": (0.93, 1.07), "fast": (1.22, 1.35)}
_LEVEL = {"quiet": (-38.0, -33.0), "normal": (-27.0, -20.0), "loud": (-16.0, -13.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """Samples float32 [C] at 16 kHz and, for clips with speech, the style measured on the clean
    speech.
    """

    samples: np.ndarray
    style: SpeakingStyle | None


def render(entry: clip_plan.PlannedClip, *, cache: Path) -> Rendered:
    """Make one clip; the same entry always gives the same samples."""
    rng = np.random.default_rng(entry.seed)
    if entry.kind in ("sound", "real_sound"):
        return Rendered(samples=_sound(entry, rng, cache), style=None)
    if entry.kind == "music":
        samples = music.piece(entry.music, rng=rng, seconds=rng.uniform(3.0, 5.0), cache=cache)
        samples = synthesis.tilt(rng, samples)
        samples = synthesis.with_noise_floor(rng, samples, snr_db=rng.uniform(30, 55))
        return Rendered(samples=_finish(samples, rng.uniform(-28, -15)), style=None)
    return _speech(entry, rng, cache)


def _sound(entry: clip_plan.PlannedClip, rng: np.random.Generator, cache: Path) -> np.ndarray:
    seconds = rng.uniform(2.0, 4.0)
    if entry.recording:
        samples = animals.crop(entry.recording, rng=rng, seconds=seconds, cache=cache)
    else:
        samples = sounds.event(
            entry.sound, rng=rng, seconds=seconds, sampled=entry.sampled, cache=cache
        )
        samples = synthesis.room(rng, samples, amount=rng.uniform(0.0, 0.35))
    samples = synthesis.tilt(rng, samples)
    onset = np.zeros(int(rng.uniform(0.0, 0.6) * SAMPLE_RATE))
    samples = np.concatenate([onset, samples])
    samples = synthesis.with_noise_floor(rng, samples, snr_db=rng.uniform(18, 45))
    return _finish(samples, rng.uniform(-32, -15))


def _speech(entry: clip_plan.PlannedClip, rng: np.random.Generator, cache: Path) -> Rendered:
    spoken = voices.speak(
        entry.sentence, voice=entry.voice, tempo=rng.uniform(*_TEMPO[entry.tempo]), cache=cache
    )
    level = rng.uniform(*_LEVEL[entry.level])
    spoken = synthesis.with_level(spoken, dbfs=level)
    pads = (rng.uniform(0.15, 0.6, size=2) * SAMPLE_RATE).astype(int)
    spoken = np.pad(spoken, tuple(pads))
    if entry.kind == "joint":
        background = sounds.event(
            entry.sound,
            rng=rng,
            seconds=len(spoken) / SAMPLE_RATE,
            sampled=entry.sampled,
            cache=cache,
        )
        background = synthesis.tilt(
            rng, synthesis.room(rng, background, amount=rng.uniform(0.0, 0.3))
        )
        clean = synthesis.tilt(rng, spoken)
        mixed = synthesis.mix(clean, background, snr_db=rng.triangular(0.0, 5.0, 10.0))
        mixed = synthesis.with_noise_floor(rng, mixed, snr_db=rng.uniform(35, 55))
        return Rendered(samples=_finish(mixed, level), style=_measure(spoken, entry))
    spoken = synthesis.with_noise_floor(rng, spoken, snr_db=rng.uniform(30, 50))
    return Rendered(samples=_finish(spoken, None), style=_measure(spoken, entry))


def _measure(samples: np.ndarray, entry: clip_plan.PlannedClip) -> SpeakingStyle:
    return speaking_style(measure_voice(samples), text=entry.sentence)


def _finish(samples: np.ndarray, dbfs: float | None) -> np.ndarray:
    if dbfs is not None:
        samples = synthesis.with_level(samples, dbfs=dbfs)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)[: 10 * SAMPLE_RATE]


def audio_path(entry: clip_plan.PlannedClip) -> str:
    """Return the path of a clip below the corpus folder."""
    return f"audio/{entry.split}/{entry.clip_id}.flac"


def write(entry: clip_plan.PlannedClip, *, corpus: Path, cache: Path) -> dict[str, Any]:
    """Render a clip into the corpus folder (16-bit mono FLAC) and return its synthesis record."""
    rendered = render(entry, cache=cache)
    target = Path(corpus) / audio_path(entry)
    with files.atomic_file(target) as temporary:
        soundfile.write(temporary, rendered.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {
        "format": FORMAT,
        "entry": dataclasses.asdict(entry),
        "seconds": len(rendered.samples) / SAMPLE_RATE,
        "sha256": files.sha256_file(target),
        "style": dataclasses.asdict(rendered.style) if rendered.style else None,
    }
