"""How a recording uses the full scale of its file: its peak, and what a converter cut."""

import dataclasses
import io
from pathlib import Path

import numpy as np

from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.formats.decode import sounds

_FULL = 0.999  # of full scale: 16-bit samples of 32735 and more
_FLAT = 3  # samples in a row at full scale that a converter cut


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullScale:
    """The share of samples in runs of at least three at full scale, and the largest sample."""

    clipped: float
    peak: float


def full_scale(source: bytes | Path, decoded: audio.Audio) -> FullScale:
    """Measure the file's own samples: resampling rounds flat tops and moves the peak."""
    if (decoded.source_rate, decoded.source_channels) == (audio.SAMPLE_RATE, 1):
        parts = [decoded.samples[:, None]]
    else:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with opened as stream:
            streams = sounds(stream, name="<the same file>")
            parts = [np.concatenate(list(sound.blocks)) for sound in streams if sound.stated != 0]
    cut = peak = 0.0
    for part in parts:
        for channel in part.T:
            size = np.abs(channel)
            cut += float(_runs(size >= _FULL, least=_FLAT).sum())
            peak = max(peak, float(size.max(initial=0.0)))
    return FullScale(clipped=cut / sum(part.size for part in parts), peak=peak)


def _runs(flags: np.ndarray, *, least: int) -> np.ndarray:
    """Return the lengths of the runs of at least `least` true values."""
    lengths = np.diff(np.flatnonzero(np.diff(np.r_[False, flags, False])))[::2]
    return lengths[lengths >= least]
