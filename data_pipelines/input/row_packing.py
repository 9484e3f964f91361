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
    # Numba takes a second to import, which those who plan no row need not wait for.
    from data_pipelines.input.pair_pool import fill_rows

    first = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
    begins = np.r_[first, len(clips)]
    limits = {"room": room, "most_pairs": most_pairs, "most_clips": most_clips}
    return fill_rows(tokens, begins, **limits)


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
