"""What the model listened to while it answered: attention over Whisper's layers and over time."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError, brief
from ltu_jax.core.kept_programs import KeptJit
from ltu_jax.core.trees import Params
from ltu_jax.generation.answer_text import Detokenizer
from ltu_jax.generation.buckets import left_pad, text_positions
from ltu_jax.generation.request import EncodedClip
from ltu_jax.models.functional import Functional
from ltu_jax.models.listening import audio_heard, layers_heard
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.preprocessing.text import Tokenizer

_SHORTEST = 128  # text is padded to this, or the next power of two: each is one program


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What an answer listened to; rows sum to 1.

    Attributes:
        layers: weight of each Whisper layer at each audio token: mean over heads and queries of
            the layer transformer's attention.
        tokens: where each answer token lies on the audio tokens: attention of the position that
            chose it, mean over layers and heads, the part on audio scaled to 1.
        pieces: the text of each answer token; joined and stripped they are the answer's text.
    """

    layers: Float[np.ndarray, "A W"]
    tokens: Float[np.ndarray, "T A"]
    pieces: tuple[str, ...]


def explain(
    model: Functional[LTUAS],
    params: Params,
    *,
    prompt: Sequence[int],
    audio_features: Float[Any, "G W A D"],
    tokens: Sequence[int],
    tokenizer: Tokenizer,
) -> Explanation:
    """Explain an answer to a prompt by one forward pass over both.

    Args:
        model: the model apart from its parameters.
        params: flat parameters.
        prompt: ids of the prompt.
        audio_features: features of the clips before it; their audio tokens follow one another.
        tokens: ids of the answer, of this model or any other; at least one.
        tokenizer: tells the text of the answer's tokens.
    """
    # The position before a token chose it, so the last token is not read.
    text = [*prompt, *tokens[:-1]]
    layers, audio = _attention(model, params, text, audio_features, length=_padded(len(text)))
    return Explanation(
        layers=layers, tokens=audio[-len(tokens) :], pieces=_pieces(tokenizer, tokens)
    )


def warm(
    model: Functional[LTUAS],
    params: Params,
    *,
    audio_features: Float[Any, "G W A D"],
    longest: int,
) -> None:
    """Compile what `explain` needs for texts of up to `longest` tokens, prompt and answer together.

    In a thread that uses a store of programs, for the calls of such threads.

    Args:
        model: the model apart from its parameters.
        params: flat parameters.
        audio_features: those of any clips, as many as answers will be about.
        longest: see above; at least 1.
    """
    length = _SHORTEST
    while length <= _padded(longest):
        args = _arguments(params, [0], audio_features, length=length)
        _forward.prepare(*args, model=model)
        length *= 2


def _attention(
    model: Functional[LTUAS],
    params: Params,
    text: Sequence[int],
    audio_features: Float[Any, "G W A D"],
    *,
    length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The layers' weights [A, W], and those of the places of a text padded to `length` [T, A]."""
    args = _arguments(params, text, audio_features, length=length)
    layers, audio = jax.device_get(_forward(*args, model=model))
    return layers[0], audio[0]


def _arguments(
    params: Params, text: Sequence[int], audio_features: Float[Any, "G W A D"], *, length: int
) -> tuple[Any, ...]:
    ids, mask = left_pad([text], length=length)
    return params, ids, mask, np.asarray(audio_features, np.float32)[None]


def _padded(length: int) -> int:
    return max(_SHORTEST, 1 << (length - 1).bit_length())


@partial(KeptJit, static_argnames=("model",))
def _forward(params, ids, mask, features, *, model):
    text = TextBatch(
        input_ids=ids,
        segment_ids=mask.astype(jnp.int32),
        positions=text_positions(mask, audio_tokens=features.shape[1] * features.shape[3]),
    )
    bound = model.bind(params)
    return layers_heard(bound, features), audio_heard(bound, text, features)


def _pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds; a character of several tokens comes with its last one."""
    text = Detokenizer(tokenizer)
    *pieces, last = (text.push(token) for token in tokens)
    return (*pieces, last + text.flush())


def features_of(clip: EncodedClip) -> Float[np.ndarray, "W A D"]:
    """Return the features of a clip that was heard.

    Raises:
        UserError: a clip of text mode.
    """
    if clip.features is None:
        raise UserError(
            f"clip is of mode {clip.mode.value!r}, in which no audio is heard: explain an answer "
            "of mode 'joint' or 'audio'"
        )
    return clip.features


def ids(tokens: Any, *, config: LTUASConfig) -> tuple[int, ...]:
    """Require the ids of an answer.

    Raises:
        UserError: none, or what is no id of the vocabulary.
    """
    vocabulary = config.llama.vocab_size
    several = isinstance(tokens, Sequence | np.ndarray) and not isinstance(tokens, str | bytes)
    if not several or not all(isinstance(one, numbers.Integral) for one in tokens):
        raise UserError(f"tokens is {brief(tokens)}: give the ids of an answer, Answer.tokens")
    if len(tokens) == 0:
        raise UserError("tokens is empty: give the ids of an answer, Answer.tokens")
    for place, one in enumerate(tokens):
        if not 0 <= one < vocabulary:
            raise UserError(
                f"tokens[{place}] is {one}: the vocabulary has the ids 0 to {vocabulary - 1}"
            )
    return tuple(map(int, tokens))
