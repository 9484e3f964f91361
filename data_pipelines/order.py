"""The order of training rows, a pure function of (seed, position): nothing to save or restore.

A row is one clip with at most `pairs_per_row` of its pairs. Rows stream without end: position p is
row `p % N` of epoch `p // N`, so a batch may hold the last rows of one epoch and the first of the
next, and each pair is seen exactly once per epoch whatever the batch size.
"""

import functools
import threading

import numpy as np

_PAIRS, _ROWS, _GROUPS = range(3)  # independent random streams of one epoch


class RowOrder:
    """Which record and which of its pairs stand at a position of the stream."""

    def __init__(
        self,
        *,
        records: np.ndarray,
        pairs: np.ndarray,
        sizes: np.ndarray,
        pairs_per_row: int,
        rows_per_batch: int,
        seed: int,
        shuffle: bool,
        group_batches: int,
    ):
        """Prepare the order.

        Args:
            records: int [P], the record of each pair, ascending.
            pairs: int [P], the number of the pair within its record.
            sizes: int [P], any measure of length, used for grouping only.
            pairs_per_row: most pairs of a clip in one row.
            rows_per_batch: rows of one global batch.
            seed: first part of every random stream.
            shuffle: False keeps the order of the records, for validation.
            group_batches: rows of similar length are put together within windows of this many
                batches (the official trainer's group_by_length uses 50); 0 for never.
        """
        self._records, self._pairs, self._sizes = records, pairs, sizes
        self._batch, self._seed, self._shuffle, self._window = (
            rows_per_batch,
            seed,
            shuffle,
            group_batches,
        )
        # Pairs of one record are neighbours, so a row begins where the rank within the record is a
        # multiple of k.
        first = np.flatnonzero(np.r_[True, records[1:] != records[:-1]])
        rank = np.arange(len(records)) - np.repeat(first, np.diff(np.r_[first, len(records)]))
        self._begin = np.flatnonzero(rank % pairs_per_row == 0)
        self._end = np.r_[self._begin[1:], len(records)]
        self._made = functools.lru_cache(maxsize=2)(
            self._make_epoch
        )  # a batch may touch two epochs
        self._lock = (
            threading.Lock()
        )  # reader threads wait for one epoch instead of each making its own

    @property
    def rows_per_epoch(self) -> int:
        """N, the number of rows that hold every pair once."""
        return len(self._begin)

    def row(self, position: int) -> tuple[int, tuple[int, ...]]:
        """The record and its pairs at `position` of the endless stream."""
        epoch, place = divmod(position, self.rows_per_epoch)
        with self._lock:
            arranged, rows = self._made(epoch)
        chosen = arranged[self._begin[rows[place]] : self._end[rows[place]]]
        return int(self._records[chosen[0]]), tuple(int(pair) for pair in self._pairs[chosen])

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch, stream])

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The arrangement of pairs (neighbours stay with their record) and the order of rows."""
        arranged, rows = np.arange(len(self._records)), np.arange(self.rows_per_epoch)
        if self._shuffle:
            arranged = np.lexsort((self._rng(epoch, _PAIRS).random(len(arranged)), self._records))
            rows = self._rng(epoch, _ROWS).permutation(rows)
        if self._window:
            rows = self._grouped(
                rows, sizes=np.add.reduceat(self._sizes[arranged], self._begin), epoch=epoch
            )
        return arranged, rows

    def _grouped(self, rows: np.ndarray, *, sizes: np.ndarray, epoch: int) -> np.ndarray:
        """Sort rows by length within each window, then shuffle the window's batches."""
        rng = self._rng(epoch, _GROUPS)
        lead = (
            -epoch * self.rows_per_epoch % self._batch
        )  # these complete the previous epoch's last batch
        parts = [rows[:lead]]
        for start in range(lead, len(rows), self._window * self._batch):
            window = rows[start : start + self._window * self._batch]
            window = window[np.argsort(sizes[window], kind="stable")]
            whole = len(window) // self._batch * self._batch
            batches = window[:whole].reshape(-1, self._batch)
            parts += [
                rng.permutation(batches).reshape(-1) if self._shuffle else batches.reshape(-1)
            ]
            parts += [window[whole:]]
        return np.concatenate(parts)
