"""The rules of Whisper's tokens, and a clip on its way through 30 s windows.

Behaviour of openai/whisper (`tokenizer.py`, `decoding.py`, `transcribe.py`): blank and symbol
suppression, timestamp rules, cutting a window into segments, compression ratio.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import remove_thanks
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary, non_speech_ids

SECONDS_PER_TIMESTAMP = 0.02
FRAMES_PER_TIMESTAMP = 2
WINDOW_FRAMES = 3000
SECONDS_PER_FRAME = SECONDS_PER_TIMESTAMP / FRAMES_PER_TIMESTAMP
_SILENT_TAIL = 800  # zero samples that make the frames behind a clip's end exactly silent
_FIRST_TIMESTAMP_LIMIT = 50  # the first segment starts within the first second


class Masks(NamedTuple):
    """Tokens that may never be chosen, and those that may not be the first one."""

    always: Bool[Array, "V"]
    first: Bool[Array, "V"]


def masks(vocabulary: Vocabulary, *, encode: Callable[[str], list[int]]) -> Masks:
    """Mask symbol annotations and control tokens always, a blank or an end at first."""
    specials = (
        vocabulary.transcribe,
        vocabulary.translate,
        vocabulary.start,
        vocabulary.start_of_lm,
        vocabulary.previous,
        vocabulary.no_speech,
    )
    always = np.zeros(vocabulary.size, bool)
    always[[*specials, *non_speech_ids(encode)]] = True
    first = np.zeros(vocabulary.size, bool)
    first[[*encode(" "), vocabulary.end]] = True
    return Masks(always=jnp.asarray(always), first=jnp.asarray(first))


class Emitted(NamedTuple):
    """The tokens that a row has sampled so far, as far as the rules ask."""

    count: Int[Array, "B"]
    last: Int[Array, "B"]
    before: Int[Array, "B"]
    newest_timestamp: Int[Array, "B"]  # -1 before the first


def restrict(
    logits: Float[Array, "B V"],
    emitted: Emitted,
    *,
    vocabulary: Vocabulary,
    masks: Masks,
    timestamps: bool,
) -> Float[Array, "B V"]:
    """Return logits with everything that may not come next at -inf."""
    first = (emitted.count == 0)[:, None]
    logits = jnp.where(masks.always | (first & masks.first), -jnp.inf, logits)
    if not timestamps:
        return logits
    ids = jnp.arange(vocabulary.size)
    is_timestamp = ids >= vocabulary.timestamp

    # Timestamps come in pairs, except at the end: after one, either its partner or text.
    after = ((emitted.count >= 1) & (emitted.last >= vocabulary.timestamp))[:, None]
    paired = ((emitted.count < 2) | (emitted.before >= vocabulary.timestamp))[:, None]
    banned = (after & paired & is_timestamp) | (after & ~paired & (ids < vocabulary.end))
    # They never go back, and a segment that is open must get some length.
    newest = emitted.newest_timestamp[:, None]
    floor = jnp.where(after & ~paired, newest, newest + 1)
    banned |= (newest >= 0) & is_timestamp & (ids < floor)
    # The window opens with one, within its first second.
    opening = ~is_timestamp | (ids > vocabulary.timestamp + _FIRST_TIMESTAMP_LIMIT)
    banned |= (ids == vocabulary.no_timestamps) | (first & opening)
    logits = jnp.where(banned, -jnp.inf, logits)

    # If all timestamps together are likelier than any text token, a timestamp it is.
    as_timestamp = jax.nn.logsumexp(jnp.where(is_timestamp, logits, -jnp.inf), axis=-1)
    as_text = jnp.max(jnp.where(is_timestamp, -jnp.inf, logits), axis=-1)
    must = (as_timestamp > as_text)[:, None]
    return jnp.where(must & ~is_timestamp, -jnp.inf, logits)


class Piece(NamedTuple):
    """A stretch of one window: seconds from the window's start, and its tokens."""

    start: float
    end: float
    tokens: list[int]


def cut(tokens: Sequence[int], *, vocabulary: Vocabulary, frames: int) -> tuple[list[Piece], int]:
    """Cut a window's tokens at its timestamp pairs.

    Args:
        tokens: sampled ids without the end token.
        vocabulary: the special ids.
        frames: log-mel frames of content in the window.

    Returns:
        The pieces, and how many frames to move on: the whole window, or only to the last complete
        pair when the model was cut off inside a sentence.
    """
    stamp = vocabulary.timestamp
    is_stamp = [token >= stamp for token in tokens]
    cuts = [i + 1 for i in range(len(tokens) - 1) if is_stamp[i] and is_stamp[i + 1]]
    if not cuts:
        stamps = [token for token in tokens if token >= stamp]
        end = frames * SECONDS_PER_TIMESTAMP / FRAMES_PER_TIMESTAMP
        if stamps and stamps[-1] != stamp:
            end = (stamps[-1] - stamp) * SECONDS_PER_TIMESTAMP
        return [Piece(0.0, end, list(tokens))], frames
    closed = is_stamp[-2:] == [False, True]
    if closed:
        cuts.append(len(tokens))
    pieces = []
    for begin, stop in zip([0, *cuts], cuts, strict=False):
        part = list(tokens[begin:stop])
        start, end = ((part[i] - stamp) * SECONDS_PER_TIMESTAMP for i in (0, -1))
        pieces.append(Piece(start, end, part))
    moved = (tokens[cuts[-1] - 1] - stamp) * FRAMES_PER_TIMESTAMP
    return pieces, frames if closed else moved


def compression_ratio(text: str) -> float:
    """Return the bytes of the text over bytes of its zlib form; above 2.4 it repeats itself."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


# --- a clip and its windows -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of speech: `start` and `end` in seconds, and how it was decoded.

    `window` is where its window begins, in seconds; `tokens` are Whisper's, time stamps among them.
    """

    start: float
    end: float
    text: str
    window: float
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The text of a clip; probabilities are means over its windows (nan without one)."""

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
    """The probabilities of one window's text."""

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
