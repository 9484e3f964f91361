"""A voice of known pitch, length and level: harmonics under the swell of syllables."""

import numpy as np

RATE = 16_000


def voice(
    *,
    f0: float,
    seconds: float,
    dbfs: float,
    noise_dbfs: float = -80.0,
    padded: float = 0.3,
    syllables: float = 4.0,
) -> np.ndarray:
    """Return `seconds` of voice between silences, all of it over faint noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    harmonics = range(1, int(6_000 / f0))
    tone = sum(np.sin(2 * np.pi * f0 * k * time + k * k) / k for k in harmonics)
    tone = tone * (0.6 - 0.4 * np.cos(2 * np.pi * syllables * time))
    tone *= 10 ** (dbfs / 20) / np.sqrt(np.mean(tone**2))
    tone = np.pad(tone, int(padded * RATE))
    noise = np.random.default_rng(0).standard_normal(len(tone))
    return (tone + 10 ** (noise_dbfs / 20) * noise).astype(np.float32)
