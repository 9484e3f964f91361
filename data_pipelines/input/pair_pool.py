"""The inner loop of `row_packing` as machine code: ten million pairs are rows in seconds.

Numba compiles it at the first call, keeps the code beside this file or in the user's cache, and
compiles it at every start where it can write to neither. The pairs that are still to be placed are
a pool of clips, found by what is left of them: stacks of clips by tokens, as linked lists of nodes
in arrays. A clip that was taken leaves its node behind; `size` tells which nodes still hold.
"""

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

_LONG = -1  # the size of a clip that no row holds as a whole
_NONE = -1  # no clip, no node
_LEAST, _FREE, _USED = 0, 1, 2  # places in `Pool.counters`


class Pool(NamedTuple):
    """The clips that are still to be placed.

    Attributes:
        tokens: [P], of each pair.
        first: [C], where the pairs of a clip begin.
        pairs: [P], the pairs of clip c that are left are `pairs[first[c]:first[c] + left[c]]`.
        left: [C], how many are left.
        size: [C], their tokens; `_LONG` for more than a row holds; 0 while a row is filled.
        heads: [room + 2], the top node of the stack of each size; the last one is of long clips.
        filled: bit t % 64 of word t // 64 says that the stack of size t is not empty.
        counters: the fewest tokens of a pair; the first free node; nodes used so far.
    """

    tokens: np.ndarray
    first: np.ndarray
    pairs: np.ndarray
    left: np.ndarray
    size: np.ndarray
    heads: np.ndarray
    filled: np.ndarray
    counters: np.ndarray


def _compiled(function: Callable) -> Callable:
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's can be written
        return numba.njit(function)


@_compiled
def _push(pool, nodes, stack, clip):
    """Put a clip onto a stack; return the nodes [N, 2] of (clip, node below), grown if need be."""
    node = pool.counters[_FREE]
    if node == _NONE:
        node = pool.counters[_USED]
        pool.counters[_USED] += 1
        if node == len(nodes):
            grown = np.empty((2 * len(nodes), 2), np.int32)
            grown[: len(nodes)] = nodes
            nodes = grown
    else:
        pool.counters[_FREE] = nodes[node, 1]
    nodes[node, 0], nodes[node, 1] = clip, pool.heads[stack]
    pool.heads[stack] = node
    return nodes


@_compiled
def _pop(pool, nodes, stack):
    """Take the clip from the top of a stack."""
    node = pool.heads[stack]
    pool.heads[stack] = nodes[node, 1]
    nodes[node, 1] = pool.counters[_FREE]
    pool.counters[_FREE] = node
    return nodes[node, 0]


@_compiled
def _put(pool, nodes, clip, room, most_pairs):
    """Make what is left of a clip available."""
    left, size = pool.left[clip], 0
    if left == 0:
        return nodes
    for place in range(pool.first[clip], pool.first[clip] + left):
        size += pool.tokens[pool.pairs[place]]
    if size > room or left > most_pairs:
        pool.size[clip] = _LONG
        return _push(pool, nodes, room + 1, clip)
    pool.size[clip] = size
    pool.filled[size >> 6] |= np.uint64(1) << np.uint64(size & 63)
    return _push(pool, nodes, size, clip)


@_compiled
def _take(pool, clip, free, most_pairs, order, placed):
    """Take the pairs of a clip that fit out of the pool, in their order.

    They are appended to `order`, of which `placed` are used. Returns both numbers: placed, free.
    """
    begin, kept, taken = pool.first[clip], 0, 0
    for place in range(begin, begin + pool.left[clip]):
        pair = pool.pairs[place]
        if taken < most_pairs and pool.tokens[pair] <= free:
            order[placed + taken] = pair
            taken += 1
            free -= pool.tokens[pair]
        else:
            pool.pairs[begin + kept] = pair
            kept += 1
    pool.left[clip] = kept
    pool.size[clip] = 0  # its node in a stack is void from now on
    return placed + taken, free


@_compiled
def _below(pool, nodes, free):
    """Find the largest size up to `free` of which there is a whole clip; 0 for none."""
    size = free
    while size > 0:
        word = pool.filled[size >> 6] << np.uint64(63 - (size & 63))
        if word == 0:
            size = ((size >> 6) << 6) - 1
            continue
        while word >> np.uint64(63) == 0:
            word = word << np.uint64(1)
            size -= 1
        while pool.heads[size] != _NONE and pool.size[nodes[pool.heads[size], 0]] != size:
            _pop(pool, nodes, size)
        if pool.heads[size] != _NONE:
            return size
        pool.filled[size >> 6] &= ~(np.uint64(1) << np.uint64(size & 63))
        size -= 1
    return 0


@_compiled
def _filler(pool, nodes, free, slots, room):
    """Choose a clip for the room that is left.

    One that just fits; else a short one, of the share of the room that each of the clips still
    to come has; else a long one, of which a piece fills the room. Short clips must be used up
    as evenly as long ones: rows of nothing but short ones would stay half empty.
    """
    size = _below(pool, nodes, free)
    if free - size >= pool.counters[_LEAST]:
        share = _below(pool, nodes, free // slots) if slots > 1 else 0
        if share:
            return _pop(pool, nodes, share)
        while pool.heads[room + 1] != _NONE:
            clip = _pop(pool, nodes, room + 1)
            if pool.size[clip] == _LONG:
                return clip
    return _pop(pool, nodes, size) if size else _NONE


@_compiled
def fill_rows(tokens, begins, room, most_pairs, most_clips):
    """Put every pair into one row; see `row_packing.pack`.

    Args:
        tokens: int32 [P].
        begins: int64 [C + 1], where the pairs of each clip begin, and P.
        room, most_pairs, most_clips: see there.
    """
    clips = len(begins) - 1
    pool = Pool(
        tokens,
        begins[:-1],
        np.arange(len(tokens)).astype(np.int32),
        begins[1:] - begins[:-1],
        np.zeros(clips, np.int64),
        np.full(room + 2, _NONE, np.int64),
        np.zeros(room // 64 + 1, np.uint64),
        np.array([tokens.min(), _NONE, 0]),
    )
    nodes = np.empty((clips + 1, 2), np.int32)
    for clip in range(clips - 1, -1, -1):
        nodes = _put(pool, nodes, clip, room, most_pairs)
    order, begin = np.empty(len(tokens), np.int64), np.empty(len(tokens), np.int64)
    used = np.empty(most_clips, np.int64)
    placed = rows = 0
    for clip in range(clips):
        while pool.left[clip] > 0:
            begin[rows] = placed
            rows += 1
            used[0], count = clip, 1
            placed, free = _take(pool, clip, room, most_pairs, order, placed)
            while count < most_clips and free >= pool.counters[_LEAST]:
                other = _filler(pool, nodes, free, most_clips - count, room)
                if other == _NONE:
                    break
                placed, free = _take(pool, other, free, most_pairs, order, placed)
                used[count] = other
                count += 1
            for place in range(count):
                nodes = _put(pool, nodes, used[place], room, most_pairs)
    return order, begin[:rows].copy()
