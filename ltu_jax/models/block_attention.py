"""Attention of rows of many pairs, at the cost of what a pair may see.

Rows are [text][audio], cut into blocks no shorter than a pair. So a text position sees the audio,
its own block and the one before; all other scores of the row are never computed.
The three parts share one softmax; a row of few blocks is one part. Scores and softmax are float32;
what lies in memory of them between two products has the dtype of the queries, and the backward pass
makes them again from one number a query. Sums over keys are left to the products that are made
anyway. Plain array operations, so it runs anywhere and is partitioned as they are.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ltu_jax.core.axes import Array, Bool, Float
from ltu_jax.models.precision import products_of

# Axes below: B rows, K key heads, C blocks, G query heads of a key head, T and S positions of a
# block, A of audio, H of a head.
_SUBLANES = 16
_FEW = 3  # blocks of a row that are faster as one: on TPUs a pass costs more than some more scores

# Of own block, block before (C - 1 of them), audio; None where a row is one block.
Parts = tuple[Array, Array | None, Array | None]
AudioKV = tuple[Array, Array] | tuple[None, None]


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
    """Compute what `layers.attend` does, where text sees audio and at most `longest` back.

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
    kv_heads = k.shape[1]
    block = block_size(time, longest=longest)
    text = time - audio
    audio_kv: AudioKV = (k[:, :, text:], v[:, :, text:])
    if time <= _FEW * block:  # one part, which holds the audio too
        block, text, audio_kv = time, time, (None, None)
    spare = -time % block
    count = (time + spare) // block
    q = jnp.pad(q.swapaxes(1, 2), [(0, 0), (0, 0), (0, spare), (0, 0)])
    q = jnp.moveaxis(q.reshape(batch, kv_heads, -1, count, block, size), 3, 2)
    k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, spare), (0, 0)]) for x in (k, v))
    k, v = (x.reshape(batch, kv_heads, count, block, size) for x in (k, v))
    bias = _bias(visible, text=text, spare=spare, block=block)
    mixed = jnp.moveaxis(_mix(q, (k, v), audio_kv, bias, scale), 2, 3)
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
    own, before, audio = (jnp.where(part, 0.0, lowest)[:, None, :, None] for part in parts)
    return (own, before, audio) if rows.shape[1] > 1 else (own, None, None)


def _product(spec: str, x: Array, y: Array) -> Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _after(x: Array, fill: float = 0.0) -> Array:
    """C - 1 blocks as the last of C."""
    return jnp.pad(x, [(0, 0)] * 2 + [(1, 0)] + [(0, 0)] * (x.ndim - 3), constant_values=fill)


def _ahead(x: Array) -> Array:
    """C - 1 blocks as the first of C."""
    return jnp.pad(x, [(0, 0)] * 2 + [(0, 1)] + [(0, 0)] * (x.ndim - 3))


def _against(q: Array, keys: Array, audio_kv: Array | None) -> Parts:
    """Products of queries with the keys of each part."""
    own = _product("BKCGTH,BKCSH->BKCGTS", q, keys)
    if audio_kv is None:
        return own, None, None
    before = _product("BKCGTH,BKCSH->BKCGTS", q[:, :, 1:], keys[:, :, :-1])
    return own, before, _product("BKCGTH,BKAH->BKCGTA", q, audio_kv)


def _gather(parts: Parts, values: Array, audio_kv: Array | None) -> Array:
    """Sum over the parts of weights times values, float32."""
    own, before, audio = parts
    total = _product("BKCGTS,BKCSH->BKCGTH", own, values)
    if audio_kv is None:
        return total
    total += _product("BKCGTA,BKAH->BKCGTH", audio, audio_kv)
    return total + _after(_product("BKCGTS,BKCSH->BKCGTH", before, values[:, :, :-1]))


def _scatter(parts: Parts, g: Array) -> tuple[Array, Array | None]:
    """The transpose of `_gather`: what reaches the values of the text and of the audio."""
    own, before, audio = parts
    here = jnp.einsum("BKCGTS,BKCGTH->BKCSH", own, g)
    if audio is None:
        return here, None
    late = jnp.einsum("BKCGTS,BKCGTH->BKCSH", before, g[:, :, 1:])
    return here + _ahead(late), jnp.einsum("BKCGTA,BKCGTH->BKAH", audio, g)


def _minus(parts: Parts, part: Array) -> Parts:
    """Subtract a number per query [B, K, C, G, T, 1]."""
    own, before, audio = parts
    if audio is None:
        return own - part, None, None
    return own - part, before - part[:, :, 1:], audio - part


def _most(parts: Parts) -> Array:
    """The largest over the keys of all parts [B, K, C, G, T, 1]."""
    own, before, audio = jax.tree.map(lambda part: part.max(-1, keepdims=True), parts)
    if audio is None:
        return own
    return jnp.maximum(jnp.maximum(own, audio), _after(before, jnp.finfo(jnp.float32).min))


def _scores(q: Array, keys: Array, audio_kv: Array | None, bias: Parts, scale: float) -> Parts:
    return jax.tree.map(lambda part, b: part * scale + b, _against(q, keys, audio_kv), bias)


def _with_one(values: Array | None) -> Array | None:
    """Values with a column of ones, which gathers the sum of the weights."""
    if values is None:
        return None
    return jnp.concatenate([values, jnp.ones((*values.shape[:-1], 1), values.dtype)], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
    q: Array, text: tuple[Array, Array], audio_kv: AudioKV, bias: Parts, scale: float
) -> Array:
    return _forward(q, text, audio_kv, bias, scale)[0]


def _forward(q: Array, text: tuple, audio_kv: tuple, bias: Parts, scale: float) -> tuple:
    scores = _scores(q, text[0], audio_kv[0], bias, scale)
    most = _most(scores)
    weights = jax.tree.map(lambda part: jnp.exp(part).astype(q.dtype), _minus(scores, most))
    mixed = _gather(weights, _with_one(text[1]), _with_one(audio_kv[1]))
    mixed, total = mixed[..., :-1], mixed[..., -1:]
    logsum = checkpoint_name(most + jnp.log(total), "logsum")
    return (mixed / total).astype(q.dtype), (q, text, audio_kv, bias, logsum)


def _backward(scale: float, residuals: tuple, g: Array) -> tuple:
    with products_of(residuals[0].dtype):
        return _slopes(scale, residuals, g)


def _slopes(scale: float, residuals: tuple, g: Array) -> tuple:
    q, text, audio_kv, bias, logsum = residuals
    scores = _scores(q, text[0], audio_kv[0], bias, scale)
    weights = jax.tree.map(jnp.exp, _minus(scores, logsum))
    rounded = jax.tree.map(lambda part: part.astype(q.dtype), weights)
    of_values, of_heard_values = _scatter(rounded, g)
    # The mean slope of a query is what it gathered along g: no pass over the scores for a sum.
    mean = (_gather(rounded, text[1], audio_kv[1]) * g).sum(-1, keepdims=True)
    slopes = jax.tree.map(
        lambda w, slope: (w * slope * scale).astype(q.dtype),
        weights,
        _minus(_against(g, text[1], audio_kv[1]), mean),
    )
    of_q = _gather(slopes, text[0], audio_kv[0]).astype(q.dtype)
    of_keys, of_heard_keys = _scatter(slopes, q)
    return of_q, (of_keys, of_values), (of_heard_keys, of_heard_values), None


_mix.defvjp(_forward, _backward)
