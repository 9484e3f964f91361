"""Rendered audio for miniatures of published dataset layouts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def tone() -> Callable[..., Path]:
    """`tone(path, seconds=0.05, rate=16_000)` writes a 440 Hz tone, in the format of the suffix."""

    def write(path: Path, seconds: float = 0.05, rate: int = 16_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), rate)
        return path

    return write
