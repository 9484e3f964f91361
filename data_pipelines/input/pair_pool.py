"""The inner loop of `row_packing` as machine code: ten million pairs are rows in seconds.

Numba compiles it at the first call, keeps the code beside this file or in the user's cache, and
compiles it at every start where it can write to neither; a start waits for that, so the loop takes
and makes nothing but plain arrays. The pairs that are still to be placed are a pool of clips, found
by what is left of them: stacks of clips by tokens, as linked lists of nodes. A clip that was taken
leaves its node behind; its size tells which nodes still hold.

    pairs   int32 [P, 2]: number and tokens; those of clip c that are left come first among its own
    clips   int32 [C, 3]: where the pairs of a clip begin; how many are left; their tokens, `_LONG`
            for more than a row holds, 0 while a row is filled
    nodes   int32 [C + P, 2]: a clip, and the node below it
    heads   int32 [room + 3]: the top node of the stack of each size; 0 stands for free nodes and
            room + 1 for long clips; the last place counts the nodes in use
    filled  bit t % 64 of word t // 64 says that the stack of size t is not empty
"""

from collections.abc import Callable

import numba
import numpy as np

_LONG = -1  # the size of a clip that no row holds as a whole
_NONE = -1  # no clip, no node
_NUMBER, _TOKENS = 0, 1  # columns of pairs
_FIRST, _LEFT, _SIZE = 0, 1, 2  # columns of clips
_CLIP, _BELOW = 0, 1  # columns of nodes
_FREE = 0  # the stack of free nodes


def fill_rows(
    tokens: np.ndarray, begins: np.ndarray, *, room: int, most_pairs: int, most_clips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put every pair into one row; see `row_packing.pack`.

    Args:
        tokens: int [P].
        begins: int [C + 1], where the pairs of each clip begin, and P.
        room, most_pairs, most_clips: see there.
    """
    pairs = np.stack([np.arange(len(tokens), dtype=np.int32), tokens.astype(np.int32)], axis=1)
    clips = np.zeros((len(begins) - 1, 3), np.int32)
    clips[:, _FIRST], clips[:, _LEFT] = begins[:-1], np.diff(begins)
    # A row leaves one node behind at most; memory that is not touched costs nothing.
    nodes = np.empty((len(clips) + len(pairs), 2), np.int32)
    heads = np.full(room + 3, _NONE, np.int32)
    heads[-1] = 0
    filled = np.zeros(room // 64 + 1, np.uint64)
    order, begin = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.int64)
    used = np.empty(most_clips, np.int64)
    least = int(tokens.min())
    rows = _fill(pairs, clips, nodes, heads, filled, order, begin, used, most_pairs, least)
    return order, begin[:rows].copy()


def _compiled(function: Callable) -> Callable:
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's can be written
        return numba.njit(**options)(function)


@_compiled
def _push(nodes, heads, stack, clip):
    """Put a clip onto a stack."""
    node = heads[_FREE]
    if node == _NONE:
        node = heads[len(heads) - 1]
        heads[len(heads) - 1] += 1
    else:
        heads[_FREE] = nodes[node, _BELOW]
    nodes[node, _CLIP], nodes[node, _BELOW] = clip, heads[stack]
    heads[stack] = node


@_compiled
def _pop(nodes, heads, stack):
    """Take the clip from the top of a stack."""
    node = heads[stack]
    heads[stack] = nodes[node, _BELOW]
    nodes[node, _BELOW] = heads[_FREE]
    heads[_FREE] = node
    return np.int64(nodes[node, _CLIP])


@_compiled
def _put(pairs, clips, nodes, heads, filled, clip, most_pairs):
    """Make what is left of a clip available."""
    left, size, room = clips[clip, _LEFT], 0, len(heads) - 3
    if left == 0:
        return
    for place in range(clips[clip, _FIRST], clips[clip, _FIRST] + left):
        size += pairs[place, _TOKENS]
    if size > room or left > most_pairs:
        clips[clip, _SIZE] = _LONG
        _push(nodes, heads, room + 1, clip)
        return
    clips[clip, _SIZE] = size
    filled[size >> 6] |= np.uint64(1) << np.uint64(size & 63)
    _push(nodes, heads, size, clip)


@_compiled
def _take(pairs, clips, clip, free, most_pairs, order, placed):
    """Take the pairs of a clip that fit out of the pool, in their order.

    They are appended to `order`, of which `placed` are used. Returns both numbers: placed, free.
    """
    begin, kept, taken = clips[clip, _FIRST], 0, 0
    for place in range(begin, begin + clips[clip, _LEFT]):
        pair, tokens = pairs[place, _NUMBER], pairs[place, _TOKENS]
        if taken < most_pairs and tokens <= free:
            order[placed + taken] = pair
            taken += 1
            free -= tokens
        else:
            pairs[begin + kept, _NUMBER], pairs[begin + kept, _TOKENS] = pair, tokens
            kept += 1
    clips[clip, _LEFT] = kept
    clips[clip, _SIZE] = 0  # its node in a stack is void from now on
    return placed + taken, free


@_compiled
def _below(clips, nodes, heads, filled, free):
    """Find the largest size up to `free` of which there is a whole clip; 0 for none."""
    size = free
    while size > 0:
        word = filled[size >> 6] << np.uint64(63 - (size & 63))
        if word == 0:
            size = ((size >> 6) << 6) - 1
            continue
        while word >> np.uint64(63) == 0:
            word = word << np.uint64(1)
            size -= 1
        while heads[size] != _NONE and clips[nodes[heads[size], _CLIP], _SIZE] != size:
            _pop(nodes, heads, size)
        if heads[size] != _NONE:
            return size
        filled[size >> 6] &= ~(np.uint64(1) << np.uint64(size & 63))
        size -= 1
    return 0


@_compiled
def _filler(clips, nodes, heads, filled, free, slots, least):
    """Choose a clip for the room that is left.

    One that just fits; else a short one, of the share of the room that each of the clips still
    to come has; else a long one, of which a piece fills the room. Short clips must be used up
    as evenly as long ones: rows of nothing but short ones would stay half empty.
    """
    size, long = _below(clips, nodes, heads, filled, free), len(heads) - 2
    if free - size >= least:
        share = _below(clips, nodes, heads, filled, free // slots) if slots > 1 else 0
        if share:
            return _pop(nodes, heads, share)
        while heads[long] != _NONE:
            clip = _pop(nodes, heads, long)
            if clips[clip, _SIZE] == _LONG:
                return clip
    return _pop(nodes, heads, size) if size else _NONE


@_compiled
def _fill(pairs, clips, nodes, heads, filled, order, begin, used, most_pairs, least):
    """Fill `order` and `begin`; return the number of rows."""
    for clip in range(len(clips) - 1, -1, -1):
        _put(pairs, clips, nodes, heads, filled, clip, most_pairs)
    placed = rows = 0
    for clip in range(len(clips)):
        while clips[clip, _LEFT] > 0:
            begin[rows] = placed
            rows += 1
            used[0], count = clip, 1
            placed, free = _take(pairs, clips, clip, len(heads) - 3, most_pairs, order, placed)
            while count < len(used) and free >= least:
                slots = len(used) - count
                other = _filler(clips, nodes, heads, filled, free, slots, least)
                if other == _NONE:
                    break
                placed, free = _take(pairs, clips, other, free, most_pairs, order, placed)
                used[count] = other
                count += 1
            for place in range(count):
                _put(pairs, clips, nodes, heads, filled, used[place], most_pairs)
    return rows
