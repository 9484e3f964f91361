"""The compiled part of transcription: encode a batch of windows, decode a batch of rows.

Prompts may differ in length: they stand at the left, and a row takes its own prompt token as long
as it has one and a chosen token afterwards. That needs no padding, and one program serves all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.kept_programs import KeptJit
from ltu_jax.generation.buckets import BATCH_BUCKETS, bucket
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.whisper_rules import Emitted, Masks, restrict
from ltu_jax.models.functional import Functional
from ltu_jax.models.whisper import Decoder, Encoder
from ltu_jax.preprocessing.whisper_vocabulary import Vocabulary

PROMPT_BUCKETS = (1, 4, 32, 64, 128, 228)


@partial(KeptJit, static_argnames=("encoder",))
def encode(
    params: Mapping[str, Array], log_mel: Float[Array, "B F M"], *, encoder: Functional[Encoder]
) -> Float[Array, "B T D"]:
    """Return the encoded windows."""
    return encoder.bind(params).encode(log_mel)


@partial(KeptJit, static_argnames=())
def one_row(encoded: Float[Array, "B A D"], row: Int[Array, ""]) -> Float[Array, "A D"]:
    """Return the states of one of several windows."""
    return encoded[row]


class Row(NamedTuple):
    """A window to decode."""

    encoded: Float[Array, "A D"]
    prompt: Sequence[int]  # ids before the answer, ending in the task prompt
    temperature: float
    seeds: tuple[int, int, int]  # numbers that name the draw, whatever the batch


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodeSettings:
    """What rows that are decoded together share.

    Attributes:
        decoder: Whisper's decoder.
        vocabulary: special ids.
        masks: suppressed tokens.
        task_length: length of the task prompt, which begins with <|startoftranscript|>.
        room: tokens at most in this call; Whisper's own limit is half its decoder's positions.
        timestamps: whether the timestamp rules hold.
        silent_above: a row with a higher no-speech probability ends at once, without a token.
        data_parallel: the devices that rows are laid over.
    """

    decoder: Functional[Decoder]
    vocabulary: Vocabulary
    masks: Masks
    task_length: int
    room: int
    timestamps: bool
    silent_above: float
    data_parallel: DataParallel = field(default_factory=DataParallel)


class RowResult(NamedTuple):
    """One decoded window: sampled ids without the end token."""

    tokens: list[int]
    sum_logprob: float  # of the tokens and of the end token
    no_speech_prob: float
    out_of_room: bool  # neither ended nor allowed to go on by Whisper's own limit


class _Rows(NamedTuple):
    encoded: Float[Array, "B A D"]
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
    emitted: Emitted
    sum_logprob: Float[Array, "B"]
    no_speech: Float[Array, "B"]
    done: Bool[Array, "B"]
    ended: Bool[Array, "B"]


@partial(KeptJit, static_argnames=("decoder", "vocabulary"))
def detect_language(
    params: Mapping[str, Array],
    encoded: Float[Array, "B A D"],
    *,
    decoder: Functional[Decoder],
    vocabulary: Vocabulary,
) -> Int[Array, "B"]:
    """Return the index in `LANGUAGES` of the likeliest token after <|startoftranscript|>."""
    bound = decoder.bind(params)
    cache = bound.init_cache(encoded, length=1)
    start = jnp.full((encoded.shape[0], 1), vocabulary.start, jnp.int32)
    logits, _ = bound.decode(start, cache)
    languages = vocabulary.languages
    return jnp.argmax(logits[:, 0, languages.start : languages.stop], axis=-1)


def decode(
    params: Mapping[str, Array], rows: Sequence[Row], settings: DecodeSettings
) -> list[RowResult]:
    """Decode rows together; temperature 0 takes the best token, else one is drawn."""
    call = _call(params, rows, settings)
    out, counts, sums, no_speech, ended = jax.device_get(_decode(*call.args, **call.static))
    return [
        RowResult(
            tokens=out[row, : counts[row]].tolist(),
            sum_logprob=float(sums[row]),
            no_speech_prob=float(no_speech[row]),
            out_of_room=bool(~ended[row] and counts[row] < call.whole[row]),
        )
        for row in range(len(rows))
    ]


def prepare(params: Mapping[str, Array], rows: Sequence[Row], settings: DecodeSettings) -> None:
    """Compile what `decode` needs for such rows, whatever ids their prompts have."""
    call = _call(params, rows, settings)
    _decode.prepare(*call.args, **call.static)


class _Call(NamedTuple):
    """The arguments of `_decode`, and how many tokens each row may have by Whisper's own limit."""

    args: tuple[Any, ...]
    static: Mapping[str, Any]
    whole: np.ndarray


def _call(params: Mapping[str, Array], rows: Sequence[Row], settings: DecodeSettings) -> _Call:
    data_parallel, end = settings.data_parallel, settings.vocabulary.end
    spare = data_parallel.padded(len(rows), BATCH_BUCKETS) - len(rows)
    context = settings.decoder.config.n_text_ctx
    lengths = np.array([len(row.prompt) for row in rows])
    width = bucket(int(lengths.max()), PROMPT_BUCKETS)
    whole = np.minimum(context // 2, context + 1 - lengths)
    limits = np.minimum(settings.room, whole)

    def fill(values: Any, dtype: Any) -> np.ndarray:
        values = np.asarray(values, dtype)
        return np.concatenate([values, np.repeat(values[:1], spare, axis=0)])

    padded = [[*row.prompt, *[end] * (width - len(row.prompt))] for row in rows]
    batch = _Rows(
        encoded=_together(*(row.encoded for row in rows), *[rows[0].encoded] * spare),
        prompts=fill(padded, np.int32),
        prompt_lengths=fill(lengths, np.int32),
        start_at=fill(lengths - settings.task_length, np.int32),
        limits=np.concatenate([limits, np.zeros(spare)]).astype(np.int32),
        temperatures=fill([row.temperature for row in rows], np.float32),
        keys=_keys(fill([row.seeds for row in rows], np.uint32)),
    )
    return _Call(
        args=(params, data_parallel.rows(batch), settings.masks, np.float32(settings.silent_above)),
        static={
            "decoder": settings.decoder,
            "vocabulary": settings.vocabulary,
            "room": settings.room,
            "slots": min(context, width + settings.room),
            "timestamps": settings.timestamps,
            "draw": any(row.temperature for row in rows),
        },
        whole=whole,
    )


@partial(KeptJit, static_argnames=("decoder", "vocabulary", "room", "slots", "timestamps", "draw"))
def _decode(
    params: Mapping[str, Array],
    rows: _Rows,
    masks: Masks,
    silent_above: Float[Array, ""],
    *,
    decoder: Functional[Decoder],
    vocabulary: Vocabulary,
    room: int,
    slots: int,
    timestamps: bool,
    draw: bool,
):
    batch, width = rows.prompts.shape
    none = jnp.zeros(batch, jnp.int32)
    bound = decoder.bind(params)
    state = _State(
        index=jnp.int32(0),
        cache=bound.init_cache(rows.encoded, length=slots),
        token=rows.prompts[:, 0],
        out=jnp.full((batch, room), vocabulary.end, jnp.int32),
        emitted=Emitted(count=none, last=none, before=none, newest_timestamp=none - 1),
        sum_logprob=jnp.zeros(batch),
        no_speech=jnp.zeros(batch),
        done=rows.limits < 1,
        ended=jnp.zeros(batch, bool),
    )

    def step(state: _State) -> _State:
        logits, cache = bound.decode(state.token[:, None], state.cache)
        # rows behind the tokens, which a padded table has, are nothing that can be said
        logits, emitted = logits[:, 0, : vocabulary.size], state.emitted
        silence = jnp.exp(logits[:, vocabulary.no_speech] - jax.nn.logsumexp(logits, axis=-1))
        allowed = restrict(
            logits, emitted, vocabulary=vocabulary, masks=masks, timestamps=timestamps
        )
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
        place = says[:, None] & (jnp.arange(room) == emitted.count[:, None])
        count = emitted.count + says
        done = state.done | ends | silent | (count >= rows.limits)
        prompt = rows.prompts[:, jnp.minimum(state.index + 1, width - 1)]
        return _State(
            index=state.index + 1,
            cache=cache,
            token=jnp.where(says, chosen, jnp.where(done, vocabulary.end, prompt)),
            out=jnp.where(place, chosen[:, None], state.out),
            emitted=Emitted(
                count=count,
                last=jnp.where(says, chosen, emitted.last),
                before=jnp.where(says, emitted.last, emitted.before),
                newest_timestamp=jnp.where(
                    says & (chosen >= vocabulary.timestamp), chosen, emitted.newest_timestamp
                ),
            ),
            sum_logprob=state.sum_logprob + jnp.where(answering, logprob, 0.0),
            no_speech=jnp.where(state.index == rows.start_at, silence, state.no_speech),
            done=done,
            ended=state.ended | ends | silent,
        )

    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done), step, state)
    return state.out, state.emitted.count, state.sum_logprob, state.no_speech, state.ended


@partial(KeptJit, static_argnames=())
def _together(*rows: Float[Array, "A D"]) -> Float[Array, "B A D"]:
    return jnp.stack(rows)


@partial(KeptJit, static_argnames=())
def _keys(seeds: np.ndarray) -> Array:
    """One key a row from a few numbers each."""
    keys = jax.vmap(jax.random.key)(seeds[:, 0])
    for column in seeds[:, 1:].T:
        keys = jax.vmap(jax.random.fold_in)(keys, column)
    return keys
