"""Key/value caches of the two decoders: explicit arguments and return values."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ltu_jax.core.axes import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class KVCache:
    """Keys and values of all layers; slots fill from 0, the same slot for every row of the batch.

    Heads come before slots so that a decode step's products need no transposition.
    """

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]
    visible: Bool[Array, "B S"]  # slots that later queries of the row may see
    length: Int[Array, ""]  # slots filled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperCache:
    """Self-attention cache of Whisper's decoder and the keys and values of the encoded audio."""

    keys: Float[Array, "L B N S H"]
    values: Float[Array, "L B N S H"]
    cross_keys: Float[Array, "L B N A H"]
    cross_values: Float[Array, "L B N A H"]
    length: Int[Array, ""]


def empty_kv_cache(
    *, layers: int, batch: int, kv_heads: int, length: int, head_dim: int, dtype: Any
) -> KVCache:
    """Return a cache of `length` slots with none filled."""
    shape = (layers, batch, kv_heads, length, head_dim)
    return KVCache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        visible=jnp.zeros((batch, length), bool),
        length=jnp.int32(0),
    )


def write_layer(
    stored: Float[Array, "L B K S H"],
    new: Float[Array, "B K T H"],
    *,
    layer: Int[Array, ""],
    start: Int[Array, ""],
) -> tuple[Float[Array, "L B K S H"], Float[Array, "B K S H"]]:
    """Put one layer's new slots at `start`; returns all layers and that layer.

    Meant for a scan whose carry is `stored`: XLA then updates the cache in place instead of
    copying it once per step.
    """
    stored = lax.dynamic_update_slice(
        stored, new[None].astype(stored.dtype), (layer, 0, 0, start, 0)
    )
    return stored, lax.dynamic_index_in_dim(stored, layer, keepdims=False)


def causal_slots(*, slots: int, start: Int[Array, ""], new: int) -> Bool[Array, "T S"]:
    """Return which slots each of `new` queries sees when they go to `start` and on themselves."""
    return jnp.arange(slots)[None] <= start + jnp.arange(new)[:, None]


# --- slots ----------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotCache:
    """A cache whose rows come and go: each is filled from 0 to a length of its own.

    What lies behind a row's length is never seen, so a row is freed by forgetting it.
    """

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]
    length: Int[Array, "B"]  # positions filled, which is where the next token goes


def empty_slot_cache(
    *, layers: int, rows: int, kv_heads: int, length: int, head_dim: int, dtype: Any
) -> SlotCache:
    """Return a cache of `rows` empty rows of at most `length` positions."""
    shape = (layers, rows, kv_heads, length, head_dim)
    return SlotCache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        length=jnp.zeros(rows, jnp.int32),
    )


def write_rows(
    stored: Float[Array, "L B K S H"],
    new: Float[Array, "B K T H"],
    *,
    layer: Int[Array, ""],
    places: Int[Array, "B T"],
    room: int,
) -> tuple[Float[Array, "L B K S H"], Float[Array, "B K S H"]]:
    """Put one layer's new positions of the first rows at `places`, a row apart from another.

    Places beyond the cache are left out. Returns all layers, and of that layer and those rows the
    first `room` positions; see `write_layer`.
    """
    rows, heads, _, size = new.shape
    which = jnp.arange(rows)[:, None]
    moved = new.swapaxes(1, 2).astype(stored.dtype)
    stored = stored.at[layer, which, :, places].set(moved, mode="drop", unique_indices=True)
    part = lax.dynamic_slice(stored, (layer, 0, 0, 0, 0), (1, rows, heads, room, size))
    return stored, part[0]


def write_part(
    stored: Float[Array, "L B K S H"],
    new: Float[Array, "1 K T H"],
    *,
    layer: Int[Array, ""],
    slot: Int[Array, ""],
    start: Int[Array, ""],
    room: int,
) -> tuple[Float[Array, "L B K S H"], Float[Array, "1 K S H"]]:
    """Put one layer's new positions of one row at `start` and behind.

    Returns all layers, and of that layer and row the first `room` positions; see `write_layer`.
    """
    _, heads, _, size = new.shape
    stored = lax.dynamic_update_slice(
        stored, new[None].astype(stored.dtype), (layer, slot, 0, start, 0)
    )
    part = lax.dynamic_slice(stored, (layer, slot, 0, 0, 0), (1, 1, heads, room, size))
    return stored, part[0]


def copy_row(
    stored: Float[Array, "L B K S H"],
    *,
    source: Int[Array, ""],
    target: Int[Array, ""],
    room: int,
) -> Float[Array, "L B K S H"]:
    """Copy the first `room` positions of a row over those of another."""
    depth, _, heads, _, size = stored.shape
    row = lax.dynamic_slice(stored, (0, source, 0, 0, 0), (depth, 1, heads, room, size))
    return lax.dynamic_update_slice(stored, row, (0, target, 0, 0, 0))
