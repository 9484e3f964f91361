"""Rows made ahead of the step and side by side by a `tf.data` graph, handed out in their order."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipelines.input.rows import LostRecords
from data_pipelines.records.schema import RecordError
from data_pipelines.records.tf_example import import_tensorflow
from ltu_jax.core.errors import UserError

_WHOLE, _BLANKED, _FAILED = range(3)  # states of a row that was made


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostRows:
    """The rows of one host: `count` of the `per_batch` of each global batch, from `first` on."""

    per_batch: int
    first: int
    count: int

    def positions(self, step: int) -> range:
        """Return the places of those of `step` in the endless stream of rows."""
        first = step * self.per_batch + self.first
        return range(first, first + self.count)


def made_ahead(
    make: Callable[[int], tuple[list[np.ndarray], LostRecords]],
    *,
    blank: list[np.ndarray],
    rows: HostRows,
    start_step: int,
    steps: int | None,
    at_once: int,
    prefetch: int,
) -> Iterator[tuple[list[np.ndarray], LostRecords]]:
    """Yield the stacked columns of the rows of each step, and the records that they lost.

    Args:
        make: makes the row at a position; called from many threads.
        blank: what it returns, as zeros.
        rows: of each step.
        start_step, steps: which steps; None for no end.
        at_once: rows that are being made at a time.
        prefetch: batches made ahead.

    Raises:
        RecordError, UserError: as `make`, where the step of that row comes.
    """
    tf = import_tensorflow()
    # The consumer is told in order what rows lost that were made ahead and side by side.
    lost_rows: dict[int, LostRecords] = {}
    failures: dict[int, UserError] = {}

    def made(position: np.ndarray) -> list[np.ndarray]:
        try:
            columns, lost = make(int(position))
        except (RecordError, UserError) as error:
            failures[int(position)] = error
            return [*blank, np.int32(_FAILED)]
        if lost:
            lost_rows[int(position)] = lost
        return [*columns, np.int32(_BLANKED if lost else _WHOLE)]

    types = [tf.as_dtype(array.dtype) for array in blank] + [tf.int32]

    plain = tf.autograph.experimental.do_not_convert  # there is nothing in them to translate

    @plain
    def load(position: Any) -> Any:
        tensors = tf.numpy_function(made, [position], types, stateful=False)
        for tensor, array in zip(tensors, [*blank, np.int32(0)], strict=True):
            tensor.set_shape(array.shape)
        return tuple(tensors)

    end = np.iinfo(np.int64).max // rows.per_batch if steps is None else start_step + steps
    dataset = tf.data.Dataset.range(start_step, end)
    dataset = dataset.flat_map(
        plain(
            lambda step: tf.data.Dataset.range(rows.count).map(
                plain(lambda row: step * rows.per_batch + rows.first + row)
            )
        )
    )
    dataset = dataset.map(load, num_parallel_calls=at_once, deterministic=True)
    dataset = dataset.batch(rows.count, drop_remainder=True).prefetch(prefetch)
    fixed = tf.data.Options()
    # Nothing is left to tune, and the tuner's thread would hold up the end of a run for as long
    # as it happens to sleep, seconds to a minute.
    fixed.autotune.enabled = False
    fixed.threading.private_threadpool_size = at_once  # each waits for the row it asked for
    dataset = dataset.with_options(fixed)
    for step, (*columns, came) in enumerate(dataset.as_numpy_iterator(), start=start_step):
        lost = []
        for position in np.asarray(rows.positions(step))[came != _WHOLE].tolist():
            if position in failures:
                raise failures[position]
            lost += lost_rows.pop(position)
        yield columns, lost
