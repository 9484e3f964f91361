"""A clip on its way through Whisper's 30 s windows, and what is known of it at the end."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.generation.whisper_rules import FRAMES_PER_TIMESTAMP, SECONDS_PER_TIMESTAMP
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import remove_thanks

WINDOW_FRAMES = 3000
SECONDS_PER_FRAME = SECONDS_PER_TIMESTAMP / FRAMES_PER_TIMESTAMP
_SILENT_TAIL = 800  # zero samples that make the frames behind a clip's end exactly silent


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of speech: `start` and `end` in seconds, and how it was decoded."""

    start: float
    end: float
    text: str
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What Whisper heard in a clip; probabilities are means over its windows (nan without one)."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    no_speech_prob: float
    avg_logprob: float

    @property
    def spoken_text(self) -> str:
        """The text as it goes into the prompt: without "thanks for watching" and its like."""
        return remove_thanks(self.text).strip()


class Quality(NamedTuple):
    """How sure Whisper was of one window."""

    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass
class WhisperInput:
    """A clip on its way through its windows."""

    log_mel: np.ndarray
    frames: int
    silence: float
    seek: int = 0
    language: str | None = None
    tokens: list[int] = field(default_factory=list)
    prompt_from: int = 0
    segments: list[Segment] = field(default_factory=list)
    qualities: list[Quality] = field(default_factory=list)

    def window(self) -> np.ndarray:
        """Log-mel of the window at `seek`, float32 [3000, M]; silence behind the end."""
        out = np.full((WINDOW_FRAMES, self.log_mel.shape[1]), self.silence, np.float32)
        part = self.log_mel[self.seek : self.seek + WINDOW_FRAMES]
        out[: len(part)] = part
        return out

    @property
    def size(self) -> int:
        """Frames of content in the window at `seek`."""
        return min(WINDOW_FRAMES, self.frames - self.seek)


def begin(samples: np.ndarray, *, n_mels: int, index: int) -> WhisperInput:
    """A clip before its first window.

    Whisper appends 30 s of zeros; behind the clip's end those frames are all the same number, so
    they are filled in instead of computed.
    """
    if np.ndim(samples) != 1:
        raise UserError(f"clip {index}: samples of shape {np.shape(samples)}; give one channel [C]")
    padded = np.pad(np.asarray(samples, np.float32), (0, _SILENT_TAIL))
    log_mel = audio.log_mel(padded, n_mels=n_mels)
    return WhisperInput(
        log_mel=log_mel,
        frames=len(samples) // audio.HOP,
        silence=max(-1.5, float(log_mel.max()) - 2.0),
    )
