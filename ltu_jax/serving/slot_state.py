"""The rows that are answered, on the device: a prompt enters a row, rows go on, one moves.

Each row has its own length, count, end tokens, limit, settings and seed, and nothing that a row
computes depends on another. The functions here are compiled by `slot_programs`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltu_jax.core.axes import Array, Bool, Float, Int
from ltu_jax.core.trees import Params
from ltu_jax.generation import sampling as sampling_lib
from ltu_jax.generation.sampling import RowNumbers
from ltu_jax.models.functional import Functional
from ltu_jax.models.kv_cache import SlotCache, copy_row, empty_slot_cache
from ltu_jax.models.slot_decoding import go_on, language_model, read_prompt, read_rest
from ltu_jax.serving.slot_choice import (
    MOST_ENDS,
    NO_TOKEN,
    Allowed,
    RowChoice,
    RowLogprobs,
    choose,
    ends_of,
    no_logprobs,
)

_NO_DRAFT = -2  # no token and no audio token has this id


class Progress(NamedTuple):
    """What changes with each token of a row."""

    length: Int[Array, "B"]  # places of the cache filled: the newest token goes there next
    token: Int[Array, "B"]  # the newest
    count: Int[Array, "B"]  # tokens made
    done: Bool[Array, "B"]
    seen: Bool[Array, "B V"]
    history: Int[Array, "B S"]  # the id at each place, the newest included


class SlotState(NamedTuple):
    """All rows."""

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]
    choice: RowChoice
    progress: Progress


def empty_state(
    *,
    layers: int,
    rows: int,
    kv_heads: int,
    slot_tokens: int,
    head_dim: int,
    vocab: int,
    dtype: Any,
) -> SlotState:
    """Return `rows` rows of at most `slot_tokens` places with nothing in them."""
    cache = empty_slot_cache(
        layers=layers,
        rows=rows,
        kv_heads=kv_heads,
        length=slot_tokens,
        head_dim=head_dim,
        dtype=dtype,
    )

    def whole(*shape: int) -> Array:
        return jnp.zeros((rows, *shape), jnp.int32)

    def no(*shape: int) -> Array:
        return jnp.zeros((rows, *shape), bool)

    def ones() -> Array:
        return jnp.ones(rows, jnp.float32)

    numbers = RowNumbers(
        temperature=ones(),
        top_p_tail=jnp.zeros(rows, jnp.float32),
        top_k=whole(),
        repetition_penalty=ones(),
        argmax=no(),
        seed=jnp.zeros(rows, jnp.uint32),
    )
    return SlotState(
        keys=cache.keys,
        values=cache.values,
        choice=RowChoice(
            limit=whole(),
            ends=whole(MOST_ENDS),
            greedy=~no(),
            wants_logprobs=no(),
            lookup=no(),
            numbers=numbers,
        ),
        progress=Progress(
            length=cache.length,
            token=whole(),
            count=whole(),
            done=~no(),
            seen=no(vocab),
            history=whole(slot_tokens),
        ),
    )


# --- a prompt enters ------------------------------------------------------------------------------


class NewRow(NamedTuple):
    """A request on its way into a row; `ids` are padded at the end, audio is -1, -2, ... there."""

    ids: Int[Array, "1 S"]
    length: Int[Array, ""]
    slot: Int[Array, ""]
    choice: RowChoice  # of one row
    allowed: Allowed  # of one row


def read(
    params: Params,
    state: SlotState,
    ids: Int[Array, "1 T"],
    audio: Float[Array, "A E"],
    length: Int[Array, ""],
    slot: Int[Array, ""],
    *,
    model: Functional,
) -> tuple[SlotState, Float[Array, "1 V"]]:
    """Read a prompt into the cache of its row; return what its first token is chosen from."""
    llama = language_model(model.bind(params))
    cache = SlotCache(keys=state.keys, values=state.values, length=state.progress.length)
    logits, cache = read_prompt(llama, ids, audio, length=length, slot=slot, cache=cache)
    return state._replace(keys=cache.keys, values=cache.values), logits


def read_on(
    params: Params,
    layers: Any,
    state: SlotState,
    ids: Int[Array, "1 T"],
    source: Int[Array, ""],
    start: Int[Array, ""],
    length: Int[Array, ""],
    slot: Int[Array, ""],
    *,
    model: Functional,
    room: int,
) -> tuple[SlotState, Float[Array, "1 V"]]:
    """Read a part of a prompt whose beginning stands in a row; return as `read`, for the last."""
    llama = language_model(model.bind(params))
    cache = SlotCache(keys=state.keys, values=state.values, length=state.progress.length)
    at = {"source": source, "start": start, "length": length, "slot": slot}
    logits, cache = read_rest(llama, ids, **at, cache=cache, room=room, layers=layers)
    return state._replace(keys=cache.keys, values=cache.values), logits


def begin(
    state: SlotState, new: NewRow, logits: Float[Array, "1 V"]
) -> tuple[SlotState, Int[Array, ""], RowLogprobs]:
    """Choose the first token of a prompt that was read, and let its row begin.

    A program of its own: the choice takes longest to compile, and is the same for every length.
    """
    ids, slot, choice = new.ids, new.slot, new.choice
    text = (jnp.arange(ids.shape[1]) < new.length)[None] & (ids >= 0)
    seen = sampling_lib.seen_tokens(
        jnp.maximum(ids, 0), attention_mask=text, vocab=logits.shape[-1]
    )
    count = jnp.zeros(1, jnp.int32)
    token, logprobs = choose(
        logits, choice, seen=seen, count=count, allowed=new.allowed, active=jnp.ones(1, bool)
    )
    row = Progress(
        length=new.length[None],
        token=token,
        count=count + 1,
        done=ends_of(token, choice) | (choice.limit <= 1),
        seen=seen.at[0, token[0]].set(True),
        history=jnp.where(text, ids, _NO_DRAFT).at[:, new.length].set(token),
    )

    def put(rows: Array, one: Array) -> Array:
        return rows.at[slot].set(one[0])

    state = state._replace(
        choice=jax.tree.map(put, state.choice, choice),
        progress=jax.tree.map(put, state.progress, row),
    )
    return state, token[0], logprobs


def hear(
    params: Params,
    features: Float[Array, "W A D"],
    heard: Float[Array, "A E"],
    first: Int[Array, ""],
    *,
    model: Functional,
) -> Float[Array, "A E"]:
    """Put the audio tokens of one clip among those of its row, at `first` and behind."""
    tokens = model.bind(params).embed_audio(features[None])[0]
    return jax.lax.dynamic_update_slice(heard, tokens.astype(heard.dtype), (first, 0))


# --- rows go on -----------------------------------------------------------------------------------


class Made(NamedTuple):
    """The tokens of one dispatch: of `N` steps, each with places for accepted drafts."""

    tokens: Int[Array, "N B T"]  # NO_TOKEN where none was made
    logprobs: RowLogprobs  # [N, B, ...]


class StepSize(NamedTuple):
    """What a program of steps is compiled for.

    `rows` in front are looked at, which reach at most `room` places of the cache; it makes up to
    `steps` steps. Rows that ask for it have `drafts` tokens guessed and checked at once: they make
    up to 1 + drafts tokens a step.
    """

    rows: int
    room: int
    steps: int
    drafts: int


def advance(
    params: Params,
    layers: Any,
    state: SlotState,
    active: Bool[Array, "B"],
    allowed: Allowed,
    steps: Int[Array, ""],
    *,
    model: Functional,
    size: StepSize,
) -> tuple[SlotState, Made]:
    """Make up to `steps` tokens in each of the first rows that are active and not done.

    Args:
        params: the model's parameters.
        layers: its layers' `apart`, or None.
        state: all rows.
        active: rows with a request.
        allowed: what grammars allow; with a bound row `steps` is 1.
        steps: at most `size.steps`.
        model: the model.
        size: what is compiled for.
    """
    rows, drafts = size.rows, size.drafts
    llama = language_model(model.bind(params))

    def first(leaf: Array) -> Array:
        return leaf[:rows]

    choice, progress = jax.tree.map(first, (state.choice, state.progress))
    active, allowed = jax.tree.map(first, (active, allowed))
    made = Made(
        tokens=jnp.full((size.steps, rows, 1 + drafts), NO_TOKEN, jnp.int32),
        logprobs=jax.tree.map(lambda leaf: jnp.stack([leaf] * size.steps), no_logprobs(rows)),
    )

    def unfinished(carry: Any) -> Array:
        step, _, _, progress, _ = carry
        return (step < steps) & jnp.any(active & ~progress.done)

    def body(carry: Any) -> Any:
        step, keys, values, progress, made = carry
        running = active & ~progress.done
        guessed = _guess(progress, drafts)
        logits, cache = go_on(
            llama,
            jnp.concatenate([progress.token[:, None], jnp.maximum(guessed, 0)], axis=1),
            active=running,
            cache=SlotCache(keys=keys, values=values, length=progress.length),
            room=size.room,
            layers=layers,
        )
        token, logprobs = choose(
            logits[:, 0],
            choice,
            seen=progress.seen,
            count=progress.count,
            allowed=allowed,
            active=running,
        )
        new = token[:, None]
        if drafts:
            new = _accept(logits, token, guessed, choice, bound=allowed.bound)
        progress, new = _take(progress, choice, new, running)
        made = jax.tree.map(lambda all_, one: all_.at[step].set(one), made, Made(new, logprobs))
        return step + 1, cache.keys, cache.values, progress, made

    start = (jnp.int32(0), state.keys, state.values, progress, made)
    _, keys, values, progress, made = jax.lax.while_loop(unfinished, body, start)
    whole = jax.tree.map(lambda all_, one: all_.at[:rows].set(one), state.progress, progress)
    return state._replace(keys=keys, values=values, progress=whole), made


def _guess(progress: Progress, drafts: int) -> Int[Array, "B T"]:
    """What followed the last two tokens when they last stood in the row; _NO_DRAFT if never."""
    rows, slots = progress.history.shape
    if not drafts:
        return jnp.zeros((rows, 0), jnp.int32)
    places = jnp.arange(slots)
    history, end = progress.history, progress.length[:, None]
    before = jnp.take_along_axis(history, jnp.maximum(end - 1, 0), axis=1)
    earlier = jnp.pad(history, ((0, 0), (1, 0)), constant_values=_NO_DRAFT)[:, :-1]
    same = (history == progress.token[:, None]) & (earlier == before) & (places < end)
    last = jnp.max(jnp.where(same, places, -1), axis=1)[:, None]
    ahead = last + 1 + jnp.arange(drafts)
    known = (last >= 0) & (ahead <= end)
    found = jnp.take_along_axis(history, jnp.minimum(ahead, slots - 1), axis=1)
    return jnp.where(known, found, _NO_DRAFT)


def _accept(
    logits: Float[Array, "B T V"],
    token: Int[Array, "B"],
    guessed: Int[Array, "B N"],
    choice: RowChoice,
    *,
    bound: Bool[Array, "B"],
) -> Int[Array, "B T"]:
    """The tokens of a step: the chosen one, and behind each right guess the next; then NO_TOKEN."""
    best = jnp.argmax(logits.astype(jnp.float32), axis=-1).astype(jnp.int32)
    able = (choice.greedy & choice.lookup & ~choice.wants_logprobs & ~bound)[:, None]
    right = jnp.cumprod((guessed == best[:, :-1]) & able, axis=1).astype(bool)
    return jnp.concatenate([token[:, None], jnp.where(right, best[:, 1:], NO_TOKEN)], axis=1)


def _take(
    progress: Progress, choice: RowChoice, new: Int[Array, "B T"], running: Bool[Array, "B"]
) -> tuple[Progress, Int[Array, "B T"]]:
    """Add the new tokens of each row that goes on, up to its limit and its first end token."""
    width = jnp.arange(new.shape[1])
    ends = ends_of(new, choice)
    earlier = jnp.cumsum(ends, axis=1) - ends
    room = (choice.limit - progress.count)[:, None]
    kept = (new >= 0) & (earlier == 0) & (width < room) & running[:, None]
    new = jnp.where(kept, new, NO_TOKEN)
    number = kept.sum(axis=1, dtype=jnp.int32)
    rows = jnp.arange(new.shape[0])
    last = jnp.take_along_axis(new, jnp.maximum(number - 1, 0)[:, None], axis=1)[:, 0]
    count = progress.count + number
    places = progress.length[:, None] + 1 + width
    beyond = progress.history.shape[1]
    ended = jnp.any(ends & kept, axis=1) | (running & (count >= choice.limit))
    return (
        Progress(
            length=progress.length + number,
            token=jnp.where(running, last, progress.token),
            count=count,
            done=progress.done | ended,
            seen=progress.seen.at[rows[:, None], jnp.maximum(new, 0)].max(kept),
            history=progress.history.at[rows[:, None], jnp.where(kept, places, beyond)].set(
                new, mode="drop"
            ),
        ),
        new,
    )


# --- a row moves ----------------------------------------------------------------------------------


def move(
    state: SlotState, source: Int[Array, ""], target: Int[Array, ""], *, room: int
) -> SlotState:
    """Copy one row of at most `room` places over another."""

    def rows(leaf: Array) -> Array:
        return leaf.at[target].set(leaf[source])

    def layers(leaf: Array) -> Array:
        return copy_row(leaf, source=source, target=target, room=room)

    return SlotState(
        keys=layers(state.keys),
        values=layers(state.values),
        choice=jax.tree.map(rows, state.choice),
        progress=jax.tree.map(rows, state.progress),
    )
