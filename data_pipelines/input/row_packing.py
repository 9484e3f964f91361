"""Which pairs of which clips share a row: short clips together, long ones over several rows.

Every row pays for `most_clips` audio slots and `room` text tokens whatever is in them, so the aim
is few rows. A clip may be cut between any two of its pairs; a row is therefore begun with the next
clip, as many pairs of it as the cap and the room allow, and what is left is filled with others.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipelines.records.array_cache import keep_arrays, load_arrays

VERSION = 1  # of the rows that `pack` makes; part of the name of those that are kept
_LONG = -1  # the place of a clip that no row holds as a whole


def pack(
    tokens: np.ndarray, clips: np.ndarray, *, room: int, most_pairs: int, most_clips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put every pair into one row.

    Args:
        tokens: int [P], text tokens of each pair, 1 to `room`.
        clips: int [P], the clip of each pair; pairs of a clip are neighbours.
        room: most text tokens of a row.
        most_pairs: most pairs of one clip in a row.
        most_clips: most clips in a row.

    Returns:
        a permutation of 0..P-1, rows one after another and in them clip after clip, and where in
        it each row begins. Rows are begun in the order of the clips.
    """
    first = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
    ends = np.r_[first[1:], len(clips)]
    pool = _Pool(tokens.tolist(), first.tolist(), ends.tolist(), room=room, most_pairs=most_pairs)
    order: list[int] = []
    begin: list[int] = []
    for clip in range(len(first)):
        while pool.left[clip]:
            begin.append(len(order))
            used, free = [clip], room
            chosen, free = pool.take(clip, free)
            order += chosen
            while len(used) < most_clips and free >= pool.least:
                other = pool.filler(free, slots=most_clips - len(used))
                if other is None:
                    break
                chosen, free = pool.take(other, free)
                order += chosen
                used.append(other)
            for clip_used in used:
                pool.put(clip_used)
    return np.asarray(order), np.asarray(begin)


def kept_packing(
    path: Path, *, make: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Read a packing from `path`; where there is none, make it and keep it there."""
    arrays = load_arrays(path)
    if arrays is not None and {"pairs", "begin"} <= arrays.keys():
        return arrays["pairs"].astype(np.int64), arrays["begin"].astype(np.int64)
    pairs, begin = make()
    keep_arrays(path, {"pairs": pairs.astype(np.int32), "begin": begin.astype(np.int32)})
    return pairs, begin


class _Pool:
    """The pairs that are still to be placed, clips found by what is left of them."""

    def __init__(
        self, tokens: list[int], first: list[int], ends: list[int], *, room: int, most_pairs: int
    ):
        self.least = min(tokens)
        self.left = [list(range(*span)) for span in zip(first, ends, strict=True)]
        self._tokens, self._room, self._cap = tokens, room, most_pairs
        self._long: list[int] = []  # clips that no row holds as a whole
        self._whole: list[list[int]] = [[] for _ in range(room + 1)]  # the others, by tokens
        self._sizes: list[int] = [0] * len(first)  # where a clip stands now; 0: nowhere
        self._filled = 0  # bit t: `_whole[t]` is not empty
        for clip in reversed(range(len(first))):
            self.put(clip)

    def put(self, clip: int) -> None:
        """Make what is left of a clip available."""
        pairs = self.left[clip]
        if not pairs:
            return
        size = sum(self._tokens[pair] for pair in pairs)
        if size > self._room or len(pairs) > self._cap:
            self._sizes[clip] = _LONG
            self._long.append(clip)
        else:
            self._sizes[clip] = size
            self._whole[size].append(clip)
            self._filled |= 1 << size

    def take(self, clip: int, free: int) -> tuple[list[int], int]:
        """Take the pairs of a clip that fit out of the pool; return them and the room left."""
        chosen, rest = [], []
        for pair in self.left[clip]:
            if len(chosen) < self._cap and self._tokens[pair] <= free:
                chosen.append(pair)
                free -= self._tokens[pair]
            else:
                rest.append(pair)
        self.left[clip] = rest
        self._sizes[clip] = 0  # its entry in a list is void from now on
        return chosen, free

    def filler(self, free: int, *, slots: int) -> int | None:
        """Choose a clip for the room that is left.

        One that just fits; else a short one, of the share of the room that each of the clips still
        to come has; else a long one, of which a piece fills the room. Short clips must be used up
        as evenly as long ones: rows of nothing but short ones would stay half empty.
        """
        size = self._below(free)
        if free - size >= self.least:
            share = self._below(free // slots) if slots > 1 else 0
            if share:
                return self._whole[share].pop()
            while self._long:
                clip = self._long.pop()
                if self._sizes[clip] == _LONG:
                    return clip
        return self._whole[size].pop() if size else None

    def _below(self, free: int) -> int:
        """Find the largest size up to `free` of which there is a whole clip; 0 for none."""
        fitting = self._filled & ((1 << free + 1) - 1)
        while fitting:
            size = fitting.bit_length() - 1
            stack = self._whole[size]
            while stack and self._sizes[stack[-1]] != size:
                stack.pop()
            if stack:
                return size
            self._filled &= ~(1 << size)
            fitting &= ~(1 << size)
        return 0
