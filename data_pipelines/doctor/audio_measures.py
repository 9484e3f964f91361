"""Measures of the audio of one clip, and a name of its content."""

import dataclasses
from pathlib import Path

import numpy as np

from data_pipelines.doctor.data_readers import Case, Problem
from data_pipelines.measures.clipping import full_scale
from ltu_jax.core.files import sha256_file
from ltu_jax.preprocessing import audio

_QUIETEST = 1e-6  # -120 dBFS, for the logarithm


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioMeasures:
    """Measures of a clip.

    Attributes:
        rate, channels: of the file.
        seconds: decoded.
        level: RMS in dB of full scale, -120 for digital silence.
        clipped: share of samples in runs of at least three at full scale.
        dropout: seconds of the longest run of exact zeros between sounds.
        content: hash of the samples as 16 kHz mono 16-bit: the same for the same recording in
            another lossless file.
    """

    rate: int
    channels: int
    seconds: float
    level: float
    clipped: float
    dropout: float
    content: bytes


def measure_audio(case: Case) -> AudioMeasures | Problem:
    """Decode and measure the audio of a clip, which must be there."""
    if isinstance(case.audio, Path) and case.sha256 is not None:
        digest = sha256_file(case.audio)
        if digest != case.sha256:
            detail = (
                f"{case.audio}: SHA-256 {digest[:12]}..., clips.jsonl says {case.sha256[:12]}..."
            )
            return Problem(check="corrupt", where=case.where, detail=detail)
    try:
        decoded = audio.load_audio(case.audio)
    except audio.AudioError as error:
        return Problem(check="corrupt", where=case.where, detail=str(error))
    samples = decoded.samples
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return AudioMeasures(
        rate=decoded.source_rate,
        channels=decoded.source_channels,
        seconds=decoded.seconds,
        level=float(20 * np.log10(max(level, _QUIETEST))),
        clipped=full_scale(case.audio, decoded).clipped,
        dropout=_longest_gap(samples) / audio.SAMPLE_RATE,
        content=audio.content(samples),
    )


def _longest_gap(samples: np.ndarray) -> int:
    """Measure the longest run of zeros between sounds, in samples."""
    sounding = np.flatnonzero(samples)
    return int(np.diff(sounding).max(initial=1)) - 1
