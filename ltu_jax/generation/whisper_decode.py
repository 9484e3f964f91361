"""The compiled part of transcription: encode a batch of windows, decode a batch of rows.

Prompts may differ in length: they stand at the left, and a row takes its own prompt token as long
as it has one and a chosen token afterwards. That needs no padding, and one program serves all.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.generate import BATCH_BUCKETS, bucket
from ltu_jax.generation.whisper_rules import Masks, Said, restrict
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary

PROMPT_BUCKETS = (1, 4, 32, 64, 128, 228)

encode = jax.jit(
    lambda params, log_mel, function: function(params, log_mel), static_argnames="function"
)


class Functions(NamedTuple):
    """Whisper's decoder, hashable so that it can key a compiled program."""

    init_cache: Callable[..., Any]
    decode: Callable[..., Any]


class RowResult(NamedTuple):
    """One decoded window: sampled ids without the end token."""

    tokens: list[int]
    sum_logprob: float  # of the tokens and of the end token
    no_speech_prob: float
    out_of_room: bool  # neither ended nor allowed to go on by Whisper's own limit


class _Rows(NamedTuple):
    prompts: Int[Array, "B T"]
    prompt_lengths: Int[Array, "B"]
    start_at: Int[Array, "B"]  # index of <|startoftranscript|>, where no-speech is read
    limits: Int[Array, "B"]
    temperatures: Float[Array, "B"]
    keys: Array  # [B] typed PRNG keys


class _State(NamedTuple):
    index: Int[Array, ""]
    cache: Any
    token: Int[Array, "B"]
    out: Int[Array, "B T"]
    said: Said
    sum_logprob: Float[Array, "B"]
    no_speech: Float[Array, "B"]
    done: Bool[Array, "B"]
    ended: Bool[Array, "B"]


@partial(jax.jit, static_argnames=("fns", "vocabulary"))
def detect_language(
    params: Mapping[str, Array],
    encoded: Float[Array, "B A D"],
    *,
    fns: Functions,
    vocabulary: Vocabulary,
) -> Int[Array, "B"]:
    """Index in `LANGUAGES` of the likeliest language token after <|startoftranscript|>."""
    cache = fns.init_cache(params, encoded, length=1)
    start = jnp.full((encoded.shape[0], 1), vocabulary.start, jnp.int32)
    logits, _ = fns.decode(params, start, cache)
    languages = vocabulary.languages
    return jnp.argmax(logits[:, 0, languages.start : languages.stop], axis=-1)


def decode(
    params: Mapping[str, Array],
    encoded: Sequence[Float[Array, "A D"]],
    *,
    fns: Functions,
    vocabulary: Vocabulary,
    masks: Masks,
    prompts: Sequence[Sequence[int]],
    task_length: int,
    temperatures: Sequence[float],
    seeds: Sequence[tuple[int, int, int]],
    room: int,
    context: int,
    timestamps: bool,
    silent_above: float,
    data_parallel: DataParallel | None = None,
) -> list[RowResult]:
    """Decode rows together; temperature 0 takes the best token, else one is drawn.

    Args:
        params: decoder parameters.
        encoded: one encoded window a row.
        fns: the decoder.
        vocabulary: special ids.
        masks: suppressed tokens.
        prompts: ids before the answer, ending in the task prompt.
        task_length: length of the task prompt, which begins with <|startoftranscript|>.
        temperatures: one a row.
        seeds: numbers that name the draw of each row, whatever its batch.
        room: tokens at most in this call.
        context: positions of the decoder; half of them is Whisper's own limit.
        timestamps: whether the timestamp rules hold.
        silent_above: a row with a higher no-speech probability ends at once, without a token.
        data_parallel: the devices that rows are laid over; None for one.
    """
    count, data_parallel = len(prompts), data_parallel or DataParallel()
    rows = data_parallel.padded(count, BATCH_BUCKETS)
    width = bucket(max(map(len, prompts)), PROMPT_BUCKETS)
    lengths = np.array([len(prompt) for prompt in prompts])
    whole = np.minimum(context // 2, context + 1 - lengths)
    limits = np.minimum(room, whole)

    def fill(values: Any, dtype: Any) -> np.ndarray:
        values = np.asarray(values, dtype)
        return np.concatenate([values, np.repeat(values[:1], rows - count, axis=0)])

    padded = [[*prompt, *[vocabulary.end] * (width - len(prompt))] for prompt in prompts]
    given = _Rows(
        prompts=fill(padded, np.int32),
        prompt_lengths=fill(lengths, np.int32),
        start_at=fill(lengths - task_length, np.int32),
        limits=np.concatenate([limits, np.zeros(rows - count)]).astype(np.int32),
        temperatures=fill(temperatures, np.float32),
        keys=_keys(fill(seeds, np.uint32)),
    )
    out, counts, sums, no_speech, ended = jax.device_get(
        _decode(
            params,
            data_parallel.rows(jnp.stack([*encoded, *[encoded[0]] * (rows - count)])),
            data_parallel.rows(given),
            masks,
            jnp.float32(silent_above),
            fns=fns,
            vocabulary=vocabulary,
            room=room,
            slots=min(context, width + room),
            timestamps=timestamps,
            draw=any(temperatures),
        )
    )
    return [
        RowResult(
            tokens=out[row, : counts[row]].tolist(),
            sum_logprob=float(sums[row]),
            no_speech_prob=float(no_speech[row]),
            out_of_room=bool(~ended[row] and counts[row] < whole[row]),
        )
        for row in range(count)
    ]


@partial(jax.jit, static_argnames=("fns", "vocabulary", "room", "slots", "timestamps", "draw"))
def _decode(
    params: Mapping[str, Array],
    encoded: Float[Array, "B A D"],
    rows: _Rows,
    masks: Masks,
    silent_above: Float[Array, ""],
    *,
    fns: Functions,
    vocabulary: Vocabulary,
    room: int,
    slots: int,
    timestamps: bool,
    draw: bool,
):
    batch, width = rows.prompts.shape
    none = jnp.zeros(batch, jnp.int32)
    state = _State(
        index=jnp.int32(0),
        cache=fns.init_cache(params, encoded, length=slots),
        token=rows.prompts[:, 0],
        out=jnp.full((batch, room), vocabulary.end, jnp.int32),
        said=Said(count=none, last=none, before=none, newest_timestamp=none - 1),
        sum_logprob=jnp.zeros(batch),
        no_speech=jnp.zeros(batch),
        done=rows.limits < 1,
        ended=jnp.zeros(batch, bool),
    )

    def step(state: _State) -> _State:
        logits, cache = fns.decode(params, state.token[:, None], state.cache)
        # rows behind the tokens, which a padded table has, are nothing that can be said
        logits, said = logits[:, 0, : vocabulary.size], state.said
        silence = jnp.exp(logits[:, vocabulary.no_speech] - jax.nn.logsumexp(logits, axis=-1))
        allowed = restrict(logits, said, vocabulary=vocabulary, masks=masks, timestamps=timestamps)
        chosen = jnp.argmax(allowed, axis=-1).astype(jnp.int32)
        if draw:
            keys = jax.vmap(jax.random.fold_in, (0, None))(rows.keys, state.index)
            heated = allowed / jnp.where(rows.temperatures > 0, rows.temperatures, 1)[:, None]
            drawn = jax.vmap(jax.random.categorical)(keys, heated).astype(jnp.int32)
            chosen = jnp.where(rows.temperatures > 0, drawn, chosen)

        silent = (state.index == rows.start_at) & (silence > silent_above)
        answering = (state.index + 1 >= rows.prompt_lengths) & ~state.done & ~silent
        logprob = jnp.take_along_axis(allowed, chosen[:, None], axis=-1)[:, 0]
        logprob = logprob - jax.nn.logsumexp(allowed, axis=-1)
        ends = answering & (chosen == vocabulary.end)
        says = answering & ~ends
        place = says[:, None] & (jnp.arange(room) == said.count[:, None])
        count = said.count + says
        done = state.done | ends | silent | (count >= rows.limits)
        prompt = rows.prompts[:, jnp.minimum(state.index + 1, width - 1)]
        return _State(
            index=state.index + 1,
            cache=cache,
            token=jnp.where(says, chosen, jnp.where(done, vocabulary.end, prompt)),
            out=jnp.where(place, chosen[:, None], state.out),
            said=Said(
                count=count,
                last=jnp.where(says, chosen, said.last),
                before=jnp.where(says, said.last, said.before),
                newest_timestamp=jnp.where(
                    says & (chosen >= vocabulary.timestamp), chosen, said.newest_timestamp
                ),
            ),
            sum_logprob=state.sum_logprob + jnp.where(answering, logprob, 0.0),
            no_speech=jnp.where(state.index == rows.start_at, silence, state.no_speech),
            done=done,
            ended=state.ended | ends | silent,
        )

    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done), step, state)
    return state.out, state.said.count, state.sum_logprob, state.no_speech, state.ended


def _keys(seeds: np.ndarray) -> Array:
    """One key a row from a few numbers each."""
    keys = jax.vmap(jax.random.key)(seeds[:, 0])
    for column in seeds[:, 1:].T:
        keys = jax.vmap(jax.random.fold_in)(keys, column)
    return keys
