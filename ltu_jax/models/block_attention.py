"""Attention of rows of many pairs, at the cost of what a pair may see.

Rows are [text][audio], cut into blocks no shorter than a pair. So a text position sees the audio,
its own block and the one before; all other scores of the row are never computed.
The three parts share one softmax. Scores, softmax and sums are float32; what lies in memory of
them between two products has the dtype of the queries, and the backward pass makes them again from
one number a query. Plain array operations, so it runs anywhere and is partitioned as they are.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ltu_jax.core.axes import Array, Bool, Float
from ltu_jax.models.layers import attend

# Axes below: B rows, K key heads, C blocks, G query heads of a key head, T and S positions of a
# block, A of audio, H of a head.
_SUBLANES = 16

Parts = tuple[Array, Array, Array]  # of own block, block before (C - 1 of them), audio


def in_blocks(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"],
    scale: float,
    audio: int,
    longest: int,
) -> Float[Array, "B T D"]:
    """What `layers.attend` computes, where text sees audio and at most `longest` back.

    Args:
        q: queries of [text][audio].
        k: keys of the same positions.
        v: values of the same positions.
        visible: who sees whom.
        scale: of the scores.
        audio: positions at the end that are audio.
        longest: most positions of a pair.
    """
    batch, time, heads, size = q.shape
    block = block_size(time, longest=longest)
    if time <= 2 * block:  # nothing to leave out
        return attend(q, k, v, visible=visible, scale=scale)
    kv_heads, text = k.shape[1], time - audio
    spare = -time % block
    count = (time + spare) // block
    heard = k[:, :, text:], v[:, :, text:]
    q = jnp.pad(q.swapaxes(1, 2), [(0, 0), (0, 0), (0, spare), (0, 0)])
    q = jnp.moveaxis(q.reshape(batch, kv_heads, -1, count, block, size), 3, 2)
    k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, spare), (0, 0)]) for x in (k, v))
    k, v = (x.reshape(batch, kv_heads, count, block, size) for x in (k, v))
    bias = _bias(visible, text=text, spare=spare, block=block)
    mixed = jnp.moveaxis(_mix(q, (k, v), heard, bias, scale), 2, 3)
    mixed = mixed.reshape(batch, heads, count * block, size)[:, :, :time]
    return mixed.swapaxes(1, 2).reshape(batch, time, heads * size)


def block_size(time: int, *, longest: int) -> int:
    """Positions of a block: the fewest that hold a pair, or a few more where those divide a row.

    A multiple of 16, the rows of a TPU's tile of bfloat16. Rows that do not divide are padded, at
    the price of a copy.
    """
    least = -(-longest // _SUBLANES) * _SUBLANES
    sizes = range(least, least + least // 2 + 1, _SUBLANES)
    return next((size for size in sizes if time % size == 0), least)


def _bias(visible: Array, *, text: int, spare: int, block: int) -> Parts:
    """0 where a part's key is visible, else the lowest number: [B, 1, C, 1, T, S or A]."""
    batch, time, _ = visible.shape
    rows = jnp.pad(visible, [(0, 0), (0, spare), (0, 0)])
    rows = rows.reshape(batch, -1, block, time)
    near = jnp.pad(rows[..., :text], [(0, 0)] * 3 + [(0, time + spare - text)])
    near = near.reshape(*rows.shape[:3], -1, block)
    own, before = (jnp.diagonal(near, offset, axis1=1, axis2=3) for offset in (0, -1))
    parts = jnp.moveaxis(own, -1, 1), jnp.moveaxis(before, -1, 1), rows[..., text:]
    lowest = jnp.finfo(jnp.float32).min
    return tuple(jnp.where(part, 0.0, lowest)[:, None, :, None] for part in parts)


def _product(spec: str, x: Array, y: Array) -> Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _after(x: Array, fill: float = 0.0) -> Array:
    """C - 1 blocks as the last of C."""
    return jnp.pad(x, [(0, 0)] * 2 + [(1, 0)] + [(0, 0)] * (x.ndim - 3), constant_values=fill)


def _ahead(x: Array) -> Array:
    """C - 1 blocks as the first of C."""
    return jnp.pad(x, [(0, 0)] * 2 + [(0, 1)] + [(0, 0)] * (x.ndim - 3))


def _against(q: Array, keys: Array, heard: Array) -> Parts:
    """Products of queries with the keys of each part."""
    return (
        _product("BKCGTH,BKCSH->BKCGTS", q, keys),
        _product("BKCGTH,BKCSH->BKCGTS", q[:, :, 1:], keys[:, :, :-1]),
        _product("BKCGTH,BKAH->BKCGTA", q, heard),
    )


def _gather(parts: Parts, values: Array, heard: Array) -> Array:
    """Sum over the parts of weights times values, float32."""
    own, before, audio = parts
    total = _product("BKCGTS,BKCSH->BKCGTH", own, values)
    total += _product("BKCGTA,BKAH->BKCGTH", audio, heard)
    return total + _after(_product("BKCGTS,BKCSH->BKCGTH", before, values[:, :, :-1]))


def _scatter(parts: Parts, g: Array) -> tuple[Array, Array]:
    """The transpose of `_gather`: what reaches the values of the text and of the audio."""
    own, before, audio = parts
    late = jnp.einsum("BKCGTS,BKCGTH->BKCSH", before, g[:, :, 1:])
    here = jnp.einsum("BKCGTS,BKCGTH->BKCSH", own, g)
    return here + _ahead(late), jnp.einsum("BKCGTA,BKCGTH->BKAH", audio, g)


def _minus(parts: Parts, one: Array) -> Parts:
    """Subtract a number per query [B, K, C, G, T, 1]."""
    own, before, audio = parts
    return own - one, before - one[:, :, 1:], audio - one


def _sum(parts: Parts) -> Array:
    """Sum over the keys of all parts [B, K, C, G, T, 1]."""
    own, before, audio = (part.sum(-1, keepdims=True) for part in parts)
    return own + audio + _after(before)


def _scores(q: Array, keys: Array, heard: Array, bias: Parts, scale: float) -> Parts:
    parts = _against(q, keys, heard)
    return tuple(part * scale + more for part, more in zip(parts, bias, strict=True))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
    q: Array, text: tuple[Array, Array], heard: tuple[Array, Array], bias: Parts, scale: float
) -> Array:
    return _forward(q, text, heard, bias, scale)[0]


def _forward(q: Array, text: tuple, heard: tuple, bias: Parts, scale: float) -> tuple:
    scores = _scores(q, text[0], heard[0], bias, scale)
    own, before, audio = (part.max(-1, keepdims=True) for part in scores)
    lowest = jnp.finfo(jnp.float32).min
    most = jnp.maximum(jnp.maximum(own, audio), _after(before, lowest))
    weights = tuple(map(jnp.exp, _minus(scores, most)))
    total = _sum(weights)
    mixed = _gather(tuple(part.astype(q.dtype) for part in weights), text[1], heard[1])
    logsum = checkpoint_name(most + jnp.log(total), "logsum")
    return (mixed / total).astype(q.dtype), (q, text, heard, bias, logsum)


def _backward(scale: float, kept: tuple, g: Array) -> tuple:
    q, text, heard, bias, logsum = kept
    scores = _scores(q, text[0], heard[0], bias, scale)
    weights = tuple(map(jnp.exp, _minus(scores, logsum)))
    of_values, of_heard_values = _scatter(tuple(part.astype(q.dtype) for part in weights), g)
    slopes = _against(g, text[1], heard[1])
    mean = _sum(tuple(w * slope for w, slope in zip(weights, slopes, strict=True)))
    slopes = _minus(slopes, mean)
    slopes = tuple(
        (w * slope * scale).astype(q.dtype) for w, slope in zip(weights, slopes, strict=True)
    )
    of_q = _gather(slopes, text[0], heard[0]).astype(q.dtype)
    of_keys, of_heard_keys = _scatter(slopes, q)
    return of_q, (of_keys, of_values), (of_heard_keys, of_heard_values), None


_mix.defvjp(_forward, _backward)
