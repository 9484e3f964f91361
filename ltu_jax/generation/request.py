"""A request and its answer, and how requests are put into batches."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError
from ltu_jax.generation.sampling import SamplingConfig


class AnswerMode(StrEnum):
    """The parts of a clip that the model is given."""

    JOINT = "joint"  # audio tokens, and the transcript in the prompt
    AUDIO = "audio"  # audio tokens, and an empty Input block
    TEXT = "text"  # no audio tokens, the transcript in the prompt


class PositionLayout(StrEnum):
    """The count of the positions of a batch."""

    TRAIN = "train"  # one after the other, pads included (facts 3)
    INFERENCE = "inference"  # pads do not count (facts 19)


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip made ready for questions: `features` float32 [W, A, D], or None in text mode."""

    features: np.ndarray | None
    spoken_text: str
    seconds: float | None
    seconds_dropped: float
    mode: AnswerMode


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question for `answer_batch`; no features means text only, "" means no Input block."""

    question: str
    spoken_text: str
    audio_features: Float[Array, "W A D"] | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer and the prompt and clip behind it.

    `text` is the answer without special tokens, `spoken_text` what stood in the prompt's Input
    block, `seconds` the clip's length (None when only features were given), `seconds_dropped` how
    much of it lies behind the model's window, `tokens` the new ids (end token included),
    `finish_reason` "eos" or "length".
    """

    text: str
    spoken_text: str
    seconds: float | None
    seconds_dropped: float
    tokens: tuple[int, ...]
    finish_reason: str


def drain(
    pieces: Generator[str, None, Answer], *, show: Callable[[str], None] = lambda piece: None
) -> Answer:
    """Return the answer behind its pieces; `show` gets each of them as it comes."""
    while True:
        try:
            show(next(pieces))
        except StopIteration as end:
            return end.value


def per_request(
    sampling: SamplingConfig | Sequence[SamplingConfig] | None, count: int
) -> list[SamplingConfig] | None:
    """Return one config a request, or None for greedy decoding.

    Raises:
        UserError: the numbers differ.
    """
    if sampling is None:
        return None
    configs = [sampling] * count if isinstance(sampling, SamplingConfig) else list(sampling)
    if len(configs) != count:
        raise UserError(
            f"{len(configs)} sampling configs for {count} requests; give one or {count}"
        )
    return configs


def batches(
    requests: Sequence[Request], prompts: Sequence[Sequence[int]], batch_size: int
) -> Iterator[list[int]]:
    """Yield batches of request indices: all with audio or all without, of similar prompt length."""
    for with_audio in (True, False):
        members = [
            i
            for i, request in enumerate(requests)
            if (request.audio_features is not None) == with_audio
        ]
        members.sort(key=lambda i: len(prompts[i]))
        for first in range(0, len(members), batch_size):
            yield members[first : first + batch_size]
