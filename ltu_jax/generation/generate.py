"""Autoregressive answers: one prefill, then one step function that both roads use.

`generate` runs the step in a compiled `lax.while_loop`; `stream` calls the same step once a token.
The cache is filled by a program for each size of prompt; the loop, which takes longest to compile,
is the same for all prompts that fit into a room of the cache (`buckets`). Audio tokens come before
the padding and the text. The mask is `[ones(A), text mask]` and positions are `cumsum(mask) - 1`
(facts 19 and 5a: the mask of the released code is misaligned for padded batches; this one gives
each row its own answer).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.trees import Params
from ltu_jax.generation import sampling as sampling_lib
from ltu_jax.generation.buckets import (
    ANSWER_BUCKETS,
    BATCH_BUCKETS,
    PAD_ID,
    PROMPT_BUCKETS,
    bucket,
    slots,
    text_positions,
)
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.sampling import RowSettings, SamplingConfig
from ltu_jax.models.functional import Functional
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import TextBatch

# New tokens from which a CPU takes the layers apart: 30 layers compile some seconds longer, then a
# token takes 0.6 of the time.
LONG_ANSWER = 64


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Answers of a batch.

    `tokens` int32 [B, N] holds the new ids, the end-of-sequence id included and pads after it;
    `lengths` int32 [B] counts them; `finish_reasons` says "eos" or "length" for each row;
    `scores` float32 [B, N, V] are the processed logits each token was chosen from, if asked for.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    finish_reasons: tuple[str, ...]
    scores: np.ndarray | None

    def row(self, index: int) -> list[int]:
        """Return the new ids of one row, the end-of-sequence id included if it came."""
        return self.tokens[index, : self.lengths[index]].tolist()


class _Prompt(NamedTuple):
    """What the cache is filled from; all shapes are bucket shapes."""

    input_ids: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    audio_features: Float[Array, "B W A D"] | None


class _Choice(NamedTuple):
    """How each row's tokens are chosen, and when it ends."""

    limits: Int[Array, "B"]  # new tokens allowed; 0 for rows that only fill the batch
    eos_id: Int[Array, ""]
    settings: RowSettings | None


class _State(NamedTuple):
    """Everything that one step reads and writes."""

    cache: Any
    token: Int[Array, "B"]  # the newest token of each row
    count: Int[Array, ""]  # tokens made so far, `token` included
    next_position: Int[Array, "B"]  # where `token` stands when it is fed back
    done: Bool[Array, "B"]
    ended: Bool[Array, "B"]  # done by end-of-sequence
    seen: Bool[Array, "B V"] | None
    scores: Float[Array, "B V"]  # what `token` was chosen from


def generate(
    model: Functional[LTUAS],
    params: Params,
    *,
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    audio_features: Any | None,
    max_new_tokens: int | Sequence[int],
    eos_id: int,
    sampling: SamplingConfig | Sequence[SamplingConfig] | None,
    with_scores: bool = False,
    data_parallel: DataParallel | None = None,
) -> Generated:
    """Answer a left-padded batch in one compiled loop that stops when every row has ended.

    Args:
        model: the model apart from its parameters.
        params: flat parameters.
        input_ids: int [B, T]; pads on the left.
        attention_mask: [B, T], non-zero at real tokens (audio tokens are always attended).
        audio_features: float [B, W, A, D], or None for text only.
        max_new_tokens: at least 1, for all rows or one number per row.
        eos_id: a row ends after this id, which stays in its tokens.
        sampling: None is greedy; one config for all rows (each row draws as if it were alone), or
            one config per row.
        with_scores: also return the processed logits of each step (memory B x N x V).
        data_parallel: the devices that rows are laid over, with `params` copied there; None: one.

    Raises:
        ValueError: shapes that do not agree, a mask that does not end in a real token, a limit
            below 1.
    """
    rows = _check(input_ids, attention_mask, audio_features)
    limits = _limits(max_new_tokens, rows)
    layout = data_parallel or DataParallel()
    prompt = _prompt(input_ids, attention_mask, audio_features, layout)
    choice = _choice(limits, eos_id, sampling, layout)
    size = bucket(int(limits.max()), ANSWER_BUCKETS)
    with _on(layout):
        state = _jit_start(params, prompt, choice, model=model, size=size)
        tokens, lengths, scores, state = _jit_loop(
            params,
            choice,
            state,
            model=model,
            size=size,
            with_scores=with_scores,
            apart=_apart(size),
        )
    made = tokens, lengths, state.ended, scores if with_scores else None
    tokens, lengths, ended, scores = layout.to_host(made)
    keep = slice(0, int(limits.max()))
    return Generated(
        tokens=tokens[:rows, keep],
        lengths=lengths[:rows],
        finish_reasons=tuple("eos" if end else "length" for end in ended[:rows]),
        scores=scores[:rows, keep] if with_scores else None,
    )


def stream(
    model: Functional[LTUAS],
    params: Params,
    *,
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    audio_features: Any | None,
    max_new_tokens: int,
    eos_id: int,
    sampling: SamplingConfig | None,
    data_parallel: DataParallel | None = None,
) -> Iterator[int]:
    """Yield the new ids of a single prompt one by one, the end-of-sequence id included.

    Same arguments, ids and errors as `generate` with one row: both roads run the same step.
    """
    rows = _check(input_ids, attention_mask, audio_features)
    if rows != 1:
        raise ValueError(f"stream takes one prompt, got {rows}; use generate for a batch")
    layout = data_parallel or DataParallel()
    prompt = _prompt(input_ids, attention_mask, audio_features, layout)
    choice = _choice(_limits(max_new_tokens, rows), eos_id, sampling, layout)
    size = bucket(max_new_tokens, ANSWER_BUCKETS)
    layers = None
    with _on(layout):
        state = _jit_start(params, prompt, choice, model=model, size=size)
    yield int(state.token[0])
    while not bool(state.done[0]):
        with _on(layout):
            if layers is None and _apart(size):
                layers = _jit_layers(params, model=model)
            state = _jit_step(params, choice, state, layers, model=model)
        yield int(state.token[0])


def _apart(size: int) -> bool:
    """Tell whether steps take the layers' weights apart: longer to compile, faster on a CPU."""
    return size >= LONG_ANSWER and jax.default_backend() == "cpu"


def _on(layout: DataParallel) -> contextlib.AbstractContextManager:
    """Let the model say how activations lie (`core.sharding.keep_rows_apart`)."""
    if layout.mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(layout.mesh.abstract_mesh)


def _start(
    params: Params, prompt: _Prompt, choice: _Choice, *, model: Functional[LTUAS], size: int
) -> _State:
    """Read the prompt into a new cache and choose the first token of every row."""
    features = prompt.audio_features
    audio_tokens = 0 if features is None else features.shape[2]
    rows, length = prompt.input_ids.shape
    positions = text_positions(prompt.mask, audio_tokens=audio_tokens)
    text = TextBatch(
        input_ids=prompt.input_ids, segment_ids=prompt.mask.astype(jnp.int32), positions=positions
    )
    bound = model.bind(params)
    cache = bound.init_cache(rows, slots(length, audio=audio_tokens, answer=size))
    logits, cache = bound.prefill(text, features, cache=cache)
    seen = None
    if choice.settings is not None:
        seen = sampling_lib.seen_tokens(
            prompt.input_ids, attention_mask=prompt.mask, vocab=logits.shape[-1]
        )
    state = _State(
        cache=cache,
        token=jnp.zeros(rows, jnp.int32),
        count=jnp.zeros((), jnp.int32),
        next_position=positions[:, -1],
        done=choice.limits < 1,
        ended=jnp.zeros(rows, bool),
        seen=seen,
        scores=logits,
    )
    return _take(choice, state, logits)


def _step(
    params: Params, choice: _Choice, state: _State, layers: Any, *, model: Functional[LTUAS]
) -> _State:
    """Feed the newest token back and choose the next one: the one step of both roads."""
    logits, cache = model.bind(params).extend(
        state.token[:, None],
        positions=state.next_position[:, None],
        cache=state.cache,
        layers=layers,
    )
    return _take(choice, state._replace(cache=cache), logits)


def _take(choice: _Choice, state: _State, logits: Array) -> _State:
    """Choose a token from `logits`; rows that are done get pads and change nothing else."""
    if choice.settings is None:
        scores = logits.astype(jnp.float32)
        token = jnp.argmax(scores, axis=-1).astype(jnp.int32)
        seen = None
    else:
        scores = sampling_lib.process(logits, seen=state.seen, settings=choice.settings)
        token = sampling_lib.choose(scores, settings=choice.settings, step=state.count)
        seen = state.seen.at[jnp.arange(token.shape[0]), token].max(~state.done)
    token = jnp.where(state.done, PAD_ID, token)
    count = state.count + 1
    ended = state.ended | (~state.done & (token == choice.eos_id))
    return _State(
        cache=state.cache,
        token=token,
        count=count,
        next_position=state.next_position + 1,
        done=state.done | ended | (count >= choice.limits),
        ended=ended,
        seen=seen,
        scores=scores,
    )


def _loop(
    params: Params,
    choice: _Choice,
    first: _State,
    *,
    model: Functional[LTUAS],
    size: int,
    with_scores: bool,
    apart: bool,
):
    """Tokens [B, size], lengths [B], if wanted scores [B, size, V], and the last state.

    The state is returned so that its cache may lie where the first one's lay.
    """
    # made before the loop, so that its steps find them ready
    layers = None
    if apart:
        layers = jax.lax.optimization_barrier(model.bind(params).separate_layers())
    rows, vocab = first.scores.shape
    tokens = jnp.full((rows, size), PAD_ID, jnp.int32).at[:, 0].set(first.token)
    scores = jnp.zeros((rows, size if with_scores else 0, vocab), jnp.float32)
    if with_scores:
        scores = scores.at[:, 0].set(first.scores)
    lengths = jnp.where(choice.limits > 0, 1, 0)

    def going(carry):
        return ~jnp.all(carry[0].done)

    def body(carry):
        state, tokens, lengths, scores = carry
        lengths = lengths + ~state.done
        state = _step(params, choice, state, layers, model=model)
        place = state.count - 1
        tokens = tokens.at[:, place].set(state.token)
        if with_scores:
            scores = scores.at[:, place].set(state.scores)
        return state, tokens, lengths, scores

    state, tokens, lengths, scores = jax.lax.while_loop(
        going, body, (first, tokens, lengths, scores)
    )
    return tokens, lengths, scores, state


_jit_start = jax.jit(_start, static_argnames=("model", "size"))
_jit_loop = jax.jit(
    _loop, static_argnames=("model", "size", "with_scores", "apart"), donate_argnames="first"
)
_jit_step = jax.jit(_step, static_argnames=("model",))
_jit_layers = jax.jit(
    lambda params, *, model: model.bind(params).separate_layers(), static_argnames=("model",)
)


def _check(input_ids: Any, attention_mask: Any, audio_features: Any | None) -> int:
    """The number of rows; shapes and mask are what they should be or a `ValueError` says why."""
    shape = np.shape(input_ids)
    if len(shape) != 2 or np.shape(attention_mask) != shape:
        raise ValueError(
            f"input_ids {shape} and attention_mask {np.shape(attention_mask)} must both be [B, T]; "
            "the mask covers the text only, audio tokens are always attended"
        )
    if not np.all(np.asarray(attention_mask)[:, -1]):
        raise ValueError("attention_mask must end in 1 in every row: pad prompts on the left")
    if audio_features is not None and (
        np.ndim(audio_features) != 4 or np.shape(audio_features)[0] != shape[0]
    ):
        raise ValueError(
            f"audio_features {np.shape(audio_features)} must be [B, W, A, D] with B = {shape[0]}"
        )
    return shape[0]


def _limits(max_new_tokens: int | Sequence[int], rows: int) -> np.ndarray:
    limits = np.broadcast_to(np.asarray(max_new_tokens, np.int32), (rows,))
    if limits.min() < 1:
        raise ValueError(f"max_new_tokens={int(limits.min())}: must be at least 1")
    return limits


def _prompt(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    audio_features: Any | None,
    layout: DataParallel,
) -> _Prompt:
    """Pad rows and prompt to their bucket sizes; the extra rows repeat row 0."""
    rows, length = np.shape(input_ids)
    extra = layout.padded(rows, BATCH_BUCKETS) - rows
    left = bucket(length, PROMPT_BUCKETS) - length

    def fill(array: Any) -> Any:
        return np.concatenate([array, np.repeat(array[:1], extra, axis=0)]) if extra else array

    ids = np.pad(np.asarray(input_ids, np.int32), ((0, 0), (left, 0)), constant_values=PAD_ID)
    mask = np.pad(np.asarray(attention_mask).astype(bool), ((0, 0), (left, 0)))
    features = None if audio_features is None else fill(np.asarray(audio_features))
    return layout.rows(_Prompt(input_ids=fill(ids), mask=fill(mask), audio_features=features))


def _choice(
    limits: np.ndarray,
    eos_id: int,
    sampling: SamplingConfig | Sequence[SamplingConfig] | None,
    layout: DataParallel,
) -> _Choice:
    """Give every row its settings; the rows that fill a batch end at once."""
    rows = len(limits)
    extra = layout.padded(rows, BATCH_BUCKETS) - rows
    settings = None
    if sampling is not None:
        configs = [sampling] * rows if isinstance(sampling, SamplingConfig) else list(sampling)
        if len(configs) == rows:
            configs += configs[:1] * extra
        settings = sampling_lib.row_settings(configs, rows=rows + extra)
    return layout.rows(
        _Choice(
            limits=np.concatenate([limits, np.zeros(extra, np.int32)]),
            eos_id=np.asarray(eos_id, np.int32),
            settings=settings,
        )
    )
