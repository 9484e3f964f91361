"""The order of training rows, a pure function of (seed, position): nothing to save or restore.

A row is up to `clips_per_row` clips, each with at most `pairs_per_clip` of its pairs, with at most
`row_tokens` text tokens in all. Rows stream without end: position p is row `p % N` of epoch
`p // N`, so a batch may hold the last rows of one epoch and the first of the next, and each pair is
seen exactly once per epoch whatever the batch size.
"""

import dataclasses
import functools
import hashlib
import threading
from pathlib import Path
from typing import Self

import numpy as np

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.row_packing import VERSION, kept_packing, pack

_WORTH_KEEPING = 200_000  # pairs
_PAIRS, _ROWS, _GROUPS = range(3)  # independent random streams of one epoch

Contents = tuple[tuple[int, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Epoch:
    """Rows as slices `begin[r]:end[r]` of `pairs` (indices of pairs), in the order of `rows`."""

    pairs: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    rows: np.ndarray


def sorted_within(keys: np.ndarray, *, places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sort as `np.lexsort((keys, np.repeat(places, sizes)))`, ten times as fast for millions.

    Args:
        keys: float [P], from 0 up to but not including 1, clip after clip.
        places: int [C], a permutation of 0..C-1: where each clip goes.
        sizes: int [C], how many keys each clip has, 1 or more.
    """
    first = np.cumsum(sizes) - sizes
    # One number holds the place, as many bits of the key as fit, and which of its clip it is: a
    # sort of numbers is much faster than one that also moves where they came from.
    rank_bits = int(sizes.max() - 1).bit_length()
    key_bits = min(53, 63 - rank_bits - (len(sizes) - 1).bit_length())
    joined = np.repeat(places.astype(np.uint64) << np.uint64(key_bits + rank_bits), sizes)
    part = (keys * 2.0**key_bits).astype(np.uint64)
    part <<= np.uint64(rank_bits)
    joined |= part
    part[:] = np.repeat(first.astype(np.uint64), sizes)
    np.subtract(np.arange(len(keys), dtype=np.uint64), part, out=part)
    joined |= part
    joined.sort()
    upper = np.right_shift(joined, np.uint64(rank_bits), out=part)
    if (upper[1:] == upper[:-1]).any():  # keys of a clip that differ in their last bits only
        return np.lexsort((keys, np.repeat(places, sizes)))
    begins = np.empty_like(first)
    begins[places] = first
    upper >>= np.uint64(key_bits)
    joined &= np.uint64((1 << rank_bits) - 1)
    order = begins[upper]
    order += joined.view(np.int64)
    return order


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderRule:
    """How pairs become rows and rows become batches; its values name an order's fingerprint.

    Attributes:
        pairs_per_clip: most pairs of a clip in one row.
        clips_per_row: most clips in one row.
        row_tokens: most text tokens in one row.
        rows_per_batch: rows of one global batch.
        seed: first part of every random stream.
        shuffle: False keeps the order of the records, for validation.
        group_batches: rows of similar length are put together within windows of this many batches
            (the official trainer's group_by_length uses 50); 0 for never.
    """

    pairs_per_clip: int
    clips_per_row: int
    row_tokens: int
    rows_per_batch: int
    seed: int
    shuffle: bool
    group_batches: int

    @classmethod
    def from_config(cls, config: DataConfig) -> Self:
        """Return the rule of a pipeline's settings."""
        return cls(
            pairs_per_clip=config.pairs_per_clip,
            clips_per_row=config.clips_per_row,
            row_tokens=config.room,
            rows_per_batch=config.rows_per_batch,
            seed=config.seed,
            shuffle=config.shuffle,
            group_batches=0 if config.one_length else config.group_by_length,
        )


class RowOrder:
    """Which records and which of their pairs stand at a position of the stream."""

    def __init__(
        self,
        rule: OrderRule,
        *,
        records: np.ndarray,
        pairs: np.ndarray,
        tokens: np.ndarray,
        clips: np.ndarray | None = None,
        keep_in: Path | None = None,
    ):
        """Prepare the order.

        Which pairs share a row changes with the epoch where any `pairs_per_clip` pairs fit into a
        row of one clip. Where rows are packed by tokens it is a function of the seed alone,
        because N must be the same in every epoch; the order of the rows changes all the same.

        Args:
            rule: see there.
            records: int [P], the record of each pair, ascending.
            pairs: int [P], the number of the pair within its record.
            tokens: int [P], text tokens of the pair, each at most `rule.row_tokens`.
            clips: int [P], ascending: pairs of one clip. None where a record is one clip; with
                weights it is several, so that no row has a pair twice behind one audio.
            keep_in: folder where the packing of many pairs, a minute's work, is kept.
        """
        self._rule, self._keep_in = rule, keep_in
        self._records, self._pairs, self._tokens = records, pairs, tokens
        self._clips = records if clips is None else clips
        # Pairs of one clip are neighbours.
        first = np.flatnonzero(np.r_[True, self._clips[1:] != self._clips[:-1]])
        self._first, self._sizes = first, np.diff(np.r_[first, len(records)])
        longest = rule.pairs_per_clip * int(tokens.max())
        self._packed = rule.clips_per_row > 1 or longest > rule.row_tokens
        self._composed = functools.lru_cache(maxsize=2)(self._compose)
        self._made = functools.lru_cache(maxsize=2)(self._make)  # a batch may touch two epochs
        # Reader threads wait for one epoch instead of each making its own.
        self._lock = threading.Lock()

    @functools.cached_property
    def _parts(self) -> np.ndarray:
        """Where rows of one clip begin: the fewest that keep the cap, as equal as can be."""
        rank = np.arange(len(self._records)) - np.repeat(self._first, self._sizes)
        counts = np.repeat(self._sizes, self._sizes)
        part = rank * -(-counts // self._rule.pairs_per_clip) // counts  # 9 by 4 are 3 + 3 + 3
        return np.flatnonzero((rank == 0) | np.r_[True, part[1:] != part[:-1]])

    @functools.cached_property
    def rows_per_epoch(self) -> int:
        """N, the number of rows that hold every pair once."""
        # Asked once: late in a run the first epoch is no longer kept.
        return len(self._epoch(0).rows) if self._packed else len(self._parts)

    def row(self, position: int) -> Contents:
        """Return (record, its pairs) for each clip of the row at `position` of the stream."""
        chosen = self.members(position)
        clips = self._clips[chosen]
        starts = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
        return tuple(
            (int(self._records[clip[0]]), tuple(map(int, self._pairs[clip])))
            for clip in np.split(chosen, starts[1:])
        )

    def members(self, position: int) -> np.ndarray:
        """Return the indices 0..P-1 of the pairs of the row at `position`, in row order."""
        number, place = divmod(position, self.rows_per_epoch)
        epoch = self._epoch(number)
        row = epoch.rows[place]
        return epoch.pairs[epoch.begin[row] : epoch.end[row]]

    def batch(self, position: int, *, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of consecutive rows from `position` on, and where each row begins.

        The pairs are indices as in `members`, row after row; it takes time for theirs alone.
        """
        chosen, sizes, whole = [], [], self.rows_per_epoch
        for number in range(position // whole, (position + rows - 1) // whole + 1):
            epoch, before = self._epoch(number), number * whole
            places = epoch.rows[max(position - before, 0) : min(position + rows - before, whole)]
            begin, size = epoch.begin[places], epoch.end[places] - epoch.begin[places]
            shift = np.repeat(begin - np.cumsum(size) + size, size)
            chosen.append(epoch.pairs[shift + np.arange(len(shift))])
            sizes.append(size)
        sizes = np.concatenate(sizes)
        return np.concatenate(chosen), np.cumsum(sizes) - sizes

    def fingerprint(self) -> str:
        """Return the hex SHA-256 of everything that the order follows from."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr(dataclasses.astuple(self._rule)).encode())
        weighted = () if self._clips is self._records else (self._clips,)
        for values in (self._records, self._pairs, self._tokens, *weighted):
            digest.update(np.ascontiguousarray(values, np.int64))
        return digest.hexdigest()

    def totals(self, values: np.ndarray, *, epoch: int) -> np.ndarray:
        """Sum `values` [P] over the pairs of each row of an epoch [N], in row order."""
        rows = self._epoch(epoch)
        return np.add.reduceat(values[rows.pairs], rows.begin)[rows.rows]

    def clip_counts(self, *, epoch: int) -> np.ndarray:
        """Count the clips of each row of an epoch [N], in row order."""
        rows = self._epoch(epoch)
        clips = self._clips[rows.pairs]
        begins = np.r_[True, clips[1:] != clips[:-1]]
        begins[rows.begin] = True
        return np.add.reduceat(begins.astype(np.int64), rows.begin)[rows.rows]

    def _epoch(self, number: int) -> _Epoch:
        with self._lock:
            return self._made(number)

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self._rule.seed, epoch, stream])

    def _make(self, epoch: int) -> _Epoch:
        """Make the rows of an epoch and their order."""
        pairs, begin = self._composed(0 if self._packed else epoch)
        rows = np.arange(len(begin))
        if self._rule.shuffle:
            rows = self._rng(epoch, _ROWS).permutation(rows)
        if self._rule.group_batches:
            sizes = np.add.reduceat(self._tokens[pairs], begin)
            rows = self._grouped(rows, sizes=sizes, epoch=epoch)
        return _Epoch(pairs=pairs, begin=begin, end=np.r_[begin[1:], len(pairs)], rows=rows)

    def _compose(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Put pairs into rows; return them row by row, and where each row begins."""
        if not self._packed:
            return self._by_clip(epoch)[0], self._parts
        if self._keep_in is None or len(self._pairs) < _WORTH_KEEPING:
            return self._pack(epoch)
        name = f"rows-{VERSION}-{self.fingerprint()[:16]}.npz"
        return kept_packing(self._keep_in / name, make=lambda: self._pack(epoch))

    def _by_clip(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all pairs in the order of clips and within them, and how many each clip has."""
        if not self._rule.shuffle:
            return np.arange(len(self._records)), self._sizes
        rng, sizes = self._rng(epoch, _PAIRS), self._sizes
        keys, places = rng.random(len(self._records)), np.arange(len(sizes))
        if self._packed:  # the order of clips decides which of them share a row
            places = rng.permutation(len(sizes))
            sizes = np.empty_like(sizes)
            sizes[places] = self._sizes
        return sorted_within(keys, places=places, sizes=self._sizes), sizes

    def _pack(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        pairs, sizes = self._by_clip(epoch)
        order, begin = pack(
            self._tokens[pairs],
            np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            room=self._rule.row_tokens,
            most_pairs=self._rule.pairs_per_clip,
            most_clips=self._rule.clips_per_row,
        )
        return pairs[order], begin

    def _grouped(self, rows: np.ndarray, *, sizes: np.ndarray, epoch: int) -> np.ndarray:
        """Sort rows by length within each window, then shuffle the window's batches."""
        rng = self._rng(epoch, _GROUPS)
        lead = (
            -epoch * len(rows) % self._rule.rows_per_batch
        )  # these complete the previous epoch's last batch
        ordered = [rows[:lead]]
        for start in range(lead, len(rows), self._rule.group_batches * self._rule.rows_per_batch):
            window = rows[start : start + self._rule.group_batches * self._rule.rows_per_batch]
            window = window[np.argsort(sizes[window], kind="stable")]
            whole = len(window) // self._rule.rows_per_batch * self._rule.rows_per_batch
            batches = window[:whole].reshape(-1, self._rule.rows_per_batch)
            ordered += [
                rng.permutation(batches).reshape(-1) if self._rule.shuffle else batches.reshape(-1)
            ]
            ordered += [window[whole:]]
        return np.concatenate(ordered)
