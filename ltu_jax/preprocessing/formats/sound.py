"""What every reader of a format gives, and the one error of audio that cannot be used."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ltu_jax.core.errors import UserError

LOST_SHARE, LOST_SECONDS = 0.01, 0.1  # a decoder may drop its padding; more missing is damage


class AudioError(UserError):
    """Audio that cannot be used: the message names the file, what is wrong and the fix."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A stretch of audio with one rate and one number of channels.

    Attributes:
        stated: samples per channel that the file says there are; None where it does not.
        sure: whether `stated` is the exact number, against which the decoder is checked.
        blocks: decoded as they are asked for, float32 [frames, channels], -1 to 1. They raise
            AudioError where the audio is damaged, or ends before `stated`.
    """

    rate: int
    channels: int
    stated: int | None
    sure: bool
    blocks: Iterator[np.ndarray]


def is_lost(missing: float, *, of: float, rate: float) -> bool:
    """Whether so many samples are more than a decoder's padding."""
    return missing > LOST_SHARE * of or missing > LOST_SECONDS * rate
