"""The choice of each row's next token by its own settings; what no row asks for is not computed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.generation import sampling as sampling_lib
from ltu_jax.generation.sampling import RowNumbers
from ltu_jax.serving.engine_types import MOST_TOP_LOGPROBS

MOST_ENDS = 8
NO_TOKEN = -1


class RowChoice(NamedTuple):
    """How the tokens of rows are chosen and when they end; set when a row's request enters."""

    limit: Int[Array, "B"]
    ends: Int[Array, "B N"]  # ids that end the row; NO_TOKEN in unused places
    greedy: Bool[Array, "B"]
    wants_logprobs: Bool[Array, "B"]
    lookup: Bool[Array, "B"]  # drafts from the row's own past are asked for
    numbers: RowNumbers


class Allowed(NamedTuple):
    """Which tokens grammars allow next: bit `v % 32` of word `v // 32`; free rows allow all."""

    words: Int[Array, "B W"]
    bound: Bool[Array, "B"]


class RowLogprobs(NamedTuple):
    """Log-probabilities of chosen tokens and of the likeliest."""

    chosen: Float[Array, "B"]
    top_ids: Int[Array, "B P"]
    top: Float[Array, "B P"]


def ends_of(tokens: Int[Array, "B ..."], choice: RowChoice) -> Bool[Array, "B ..."]:
    """Tell which tokens end their row."""
    ends = choice.ends.reshape(choice.ends.shape[0], *[1] * (tokens.ndim - 1), -1)
    return jnp.any(tokens[..., None] == ends, axis=-1)


def choose(
    logits: Float[Array, "B V"],
    choice: RowChoice,
    *,
    seen: Bool[Array, "B V"],
    count: Int[Array, "B"],
    allowed: Allowed,
    active: Bool[Array, "B"],
) -> tuple[Int[Array, "B"], RowLogprobs]:
    """Choose each row's token; what no active row asks for is not computed."""
    raw = logits.astype(jnp.float32)
    scores = jax.lax.cond(
        jnp.any(allowed.bound & active), lambda: _restrict(raw, allowed), lambda: raw
    )
    best = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    drawing = active & ~choice.greedy

    def draw() -> Array:
        settings = choice.numbers.settings()
        settings = settings._replace(  # a slot keeps those of the row that was there before
            top_k=jnp.where(drawing, settings.top_k, 0),
            top_p_tail=jnp.where(drawing, settings.top_p_tail, 0.0),
        )
        processed = sampling_lib.process(scores, seen=seen, settings=settings)
        return sampling_lib.choose(processed, settings=settings, step=count)

    drawn = jax.lax.cond(jnp.any(drawing), draw, lambda: best)
    token = jnp.where(choice.greedy, best, drawn)
    logprobs = jax.lax.cond(
        jnp.any(active & choice.wants_logprobs),
        lambda: _logprobs(raw, token),
        lambda: no_logprobs(len(token)),
    )
    return token, logprobs


def _restrict(scores: Float[Array, "B V"], allowed: Allowed) -> Float[Array, "B V"]:
    ids = jnp.arange(scores.shape[1])
    bits = (allowed.words[:, ids // 32] >> (ids % 32).astype(jnp.uint32)) & 1
    return jnp.where((bits == 1) | ~allowed.bound[:, None], scores, -jnp.inf)


def _logprobs(logits: Float[Array, "B V"], token: Int[Array, "B"]) -> RowLogprobs:
    every = jax.nn.log_softmax(logits, axis=-1)
    values, ids = jax.lax.top_k(every, min(MOST_TOP_LOGPROBS, logits.shape[1]))
    missing = ((0, 0), (0, MOST_TOP_LOGPROBS - ids.shape[1]))
    return RowLogprobs(
        chosen=jnp.take_along_axis(every, token[:, None], axis=1)[:, 0],
        top_ids=jnp.pad(ids.astype(jnp.int32), missing, constant_values=NO_TOKEN),
        top=jnp.pad(values, missing),
    )


def no_logprobs(rows: int) -> RowLogprobs:
    """Return the log-probabilities of rows that nobody asked for."""
    return RowLogprobs(
        chosen=jnp.zeros(rows, jnp.float32),
        top_ids=jnp.full((rows, MOST_TOP_LOGPROBS), NO_TOKEN, jnp.int32),
        top=jnp.zeros((rows, MOST_TOP_LOGPROBS), jnp.float32),
    )
