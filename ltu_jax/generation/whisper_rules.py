"""What Whisper may say next, and what its tokens mean: masks, segments, quality.

Behaviour of openai/whisper (`tokenizer.py`, `decoding.py`, `transcribe.py`): blank and symbol
suppression, timestamp rules, cutting a window into segments, compression ratio.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary, non_speech_ids

SECONDS_PER_TIMESTAMP = 0.02
FRAMES_PER_TIMESTAMP = 2
_FIRST_TIMESTAMP_LIMIT = 50  # the first segment starts within the first second


class Masks(NamedTuple):
    """Tokens that may never be chosen, and those that may not be the first one."""

    always: Bool[Array, "V"]
    first: Bool[Array, "V"]


def masks(vocabulary: Vocabulary, *, encode: Callable[[str], list[int]]) -> Masks:
    """Symbol annotations and control tokens always, a blank or an immediate end at first."""
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


class Said(NamedTuple):
    """What a row has sampled so far, as far as the rules ask."""

    count: Int[Array, "B"]
    last: Int[Array, "B"]
    before: Int[Array, "B"]
    newest_timestamp: Int[Array, "B"]  # -1 before the first


def restrict(
    logits: Float[Array, "B V"],
    said: Said,
    *,
    vocabulary: Vocabulary,
    masks: Masks,
    timestamps: bool,
) -> Float[Array, "B V"]:
    """Logits with everything that may not come next at -inf."""
    first = (said.count == 0)[:, None]
    logits = jnp.where(masks.always | (first & masks.first), -jnp.inf, logits)
    if not timestamps:
        return logits
    ids = jnp.arange(vocabulary.size)
    is_timestamp = ids >= vocabulary.timestamp

    # Timestamps come in pairs, except at the end: after one, either its partner or text.
    after = ((said.count >= 1) & (said.last >= vocabulary.timestamp))[:, None]
    paired = ((said.count < 2) | (said.before >= vocabulary.timestamp))[:, None]
    banned = (after & paired & is_timestamp) | (after & ~paired & (ids < vocabulary.end))
    # They never go back, and a segment that is open must get some length.
    newest = said.newest_timestamp[:, None]
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
    """Bytes of the text over bytes of its zlib form; above 2.4 it repeats itself."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
