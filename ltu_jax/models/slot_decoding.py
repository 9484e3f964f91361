"""The language model over a cache whose rows come and go: read a prompt into a row, go on in many.

A row is [audio][text] from place 0 without gaps. What a row computes does not depend on the others.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.models.kv_cache import SlotCache, copy_row, write_part, write_rows
from ltu_jax.models.llama import Layer, Llama
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.precision import products_of
from ltu_jax.models.stacks import each_layer, scan_layers, separate_layers


def language_model(bound: LTUAS | Llama) -> Llama:
    """Return the language model of a bound LTU-AS, or the one that stands alone."""
    return bound if isinstance(bound, Llama) else bound.llama


def apart(llama: Llama) -> tuple[nnx.State, ...]:
    """Return each layer's parameters as arrays of their own, which a CPU reads without copying."""
    return separate_layers(llama.layers)


def read_prompt(
    llama: Llama,
    ids: Int[Array, "1 T"],
    audio: Float[Array, "A E"],
    *,
    length: Int[Array, ""],
    slot: Int[Array, ""],
    cache: SlotCache,
) -> tuple[Float[Array, "1 V"], SlotCache]:
    """Read a prompt into one row of the cache; return logits of the token behind it.

    Args:
        llama: the model.
        ids: token ids, or -1 - a for audio token a; what stands behind `length` has no effect.
        audio: embedded audio tokens.
        length: places of audio and text, at least 1.
        slot: the row, whose earlier content is gone.
        cache: rows of at least T places.
    """
    text = llama.embed(jnp.maximum(ids, 0))
    heard = audio[jnp.maximum(-1 - ids, 0)].astype(text.dtype)
    x = jnp.where((ids < 0)[..., None], heard, text)
    time = ids.shape[1]
    rope = llama.rope(jnp.arange(time)[None])
    # Causality hides the padding, which is at the end, from all that is read.
    visible = jnp.tril(jnp.ones((1, time, time), bool))

    def step(layer: Layer, x: Array, _: None) -> tuple[Array, Any]:
        q, k, v = layer.project(x, rope=rope)
        return layer.finish(x, (q, k, v), visible=visible), (k, v)

    with products_of(llama.dtype):
        x, (k, v) = scan_layers(llama.layers, step, x)
        last = jax.lax.dynamic_index_in_dim(x, length - 1, axis=1, keepdims=False)
        logits = llama.unembed(llama.norm(last))
    at = (0, slot, 0, 0, 0)
    keys = jax.lax.dynamic_update_slice(cache.keys, k.astype(cache.keys.dtype), at)
    values = jax.lax.dynamic_update_slice(cache.values, v.astype(cache.values.dtype), at)
    length = cache.length.at[slot].set(length)
    return logits, SlotCache(keys=keys, values=values, length=length)


def read_rest(
    llama: Llama,
    ids: Int[Array, "1 T"],
    *,
    source: Int[Array, ""],
    start: Int[Array, ""],
    length: Int[Array, ""],
    slot: Int[Array, ""],
    cache: SlotCache,
    room: int,
    layers: tuple[nnx.State, ...] | None,
) -> tuple[Float[Array, "1 V"], SlotCache]:
    """Read a prompt from `start` on; what is before stands in a row of the cache.

    Args:
        llama: the model.
        ids: of the text from `start` on; what stands behind `length` has no effect.
        source: the row with the beginning.
        start: places of it that are taken over; `start + T` is at most `room`.
        length: places of the whole prompt. The logits are those of the token behind it, and mean
            nothing where it ends behind these ids.
        slot: the row that is read into, which may be `source`; its earlier content is gone.
        cache: all rows, whose lengths stay.
        room: places of a row that are looked at.
        layers: the model's own, `apart`, or None.
    """
    time = ids.shape[1]
    places = start + jnp.arange(time)
    rope = llama.rope(places[None])
    # Causality hides the padding, and whatever else stands behind the beginning.
    visible = (jnp.arange(room) <= places[:, None])[None]

    def step(layer: Layer, carry: Any, index: Array) -> tuple[Any, None]:
        x, keys, values = carry
        q, k, v = layer.project(x, rope=rope)
        at = {"layer": index, "slot": slot, "start": start, "room": room}
        (keys, k), (values, v) = write_part(keys, k, **at), write_part(values, v, **at)
        return (layer.finish(x, (q, k, v), visible=visible), keys, values), None

    keys, values = (
        copy_row(stored, source=source, target=slot, room=room)
        for stored in (cache.keys, cache.values)
    )
    begun = (llama.embed(ids), keys, values)
    with products_of(llama.dtype):
        if layers is None:
            numbers = jnp.arange(llama.config.num_hidden_layers)
            (x, keys, values), _ = scan_layers(llama.layers, step, begun, numbers)
        else:
            (x, keys, values), _ = each_layer(llama.layers, layers, step, begun)
        last = jax.lax.dynamic_index_in_dim(x, length - 1 - start, axis=1, keepdims=False)
        logits = llama.unembed(llama.norm(last))
    return logits, SlotCache(keys=keys, values=values, length=cache.length)


def go_on(
    llama: Llama,
    ids: Int[Array, "B T"],
    *,
    active: Array,
    cache: SlotCache,
    room: int,
    layers: tuple[nnx.State, ...] | None,
) -> tuple[Float[Array, "B T V"], SlotCache]:
    """Put T tokens behind each of the first B rows; return the logits behind each of them.

    The rows' lengths stay: whoever keeps the tokens adds them.

    Args:
        llama: the model.
        ids: the tokens.
        active: bool [B]; other rows are left as they are, and their logits mean nothing.
        cache: at least B rows.
        room: places that any row's tokens reach at most; no more is read.
        layers: the model's own, `apart`, or None.
    """
    rows, time = ids.shape
    beyond = cache.keys.shape[3]
    places = cache.length[:rows, None] + jnp.arange(time)
    rope = llama.rope(places)
    visible = jnp.arange(room) <= places[..., None]
    written = jnp.where(active[:, None], places, beyond)

    def step(layer: Layer, carry: Any, index: Array) -> tuple[Any, None]:
        x, keys, values = carry
        q, k, v = layer.project(x, rope=rope)
        keys, k = write_rows(keys, k, layer=index, places=written, room=room)
        values, v = write_rows(values, v, layer=index, places=written, room=room)
        return (layer.finish(x, (q, k, v), visible=visible), keys, values), None

    start = (llama.embed(ids), cache.keys, cache.values)
    with products_of(llama.dtype):
        if layers is None:
            numbers = jnp.arange(llama.config.num_hidden_layers)
            (x, keys, values), _ = scan_layers(llama.layers, step, start, numbers)
        else:
            (x, keys, values), _ = each_layer(llama.layers, layers, step, start)
        logits = llama.unembed(llama.norm(x))
    return logits, SlotCache(keys=keys, values=values, length=cache.length)
