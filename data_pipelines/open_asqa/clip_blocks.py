"""Models over many clips, in blocks: what they found goes into a journal, and nothing twice.

A block is so many clips in a row, whether or not results of some are there already, so the batch in
which a clip is computed, and with it the last bits of its figures, does not depend on where an
earlier run was stopped.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from data_pipelines.open_asqa.clip_journal import ClipJournal
from ltu_jax.core.axes import Float
from ltu_jax.preprocessing.audio import AudioError

Clip = tuple[str, Callable[[], Float[np.ndarray, "C"]]]  # name, and what decodes it
Result = dict[str, Any]


def in_blocks(
    work: Callable[[Sequence[np.ndarray]], Iterable[Result]],
    clips: Iterable[Clip],
    journal: ClipJournal,
    *,
    size: int,
    workers: int,
) -> Iterator[Result]:
    """Do the work on every clip that is not in the journal; yield the results of all, in order.

    Args:
        work: returns a result for each of several clips.
        clips: their names, each once, and what decodes them.
        journal: where results are kept; audio that cannot be decoded has an "error" there.
        size: clips of a block.
        workers: threads that decode ahead.
    """
    source = iter(clips)
    waiting: deque[list[tuple[str, Future]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(source, size)):
            known = [journal.find(name) for name, _ in block]
            if all(result is not None for result in known):
                while waiting:
                    yield from _finished(work, waiting.popleft(), journal)
                yield from known
                continue
            waiting.append([(name, pool.submit(decode)) for name, decode in block])
            if len(waiting) > 1:
                yield from _finished(work, waiting.popleft(), journal)
        while waiting:
            yield from _finished(work, waiting.popleft(), journal)


def _finished(
    work: Callable[[Sequence[np.ndarray]], Iterable[Result]],
    block: Sequence[tuple[str, Future]],
    journal: ClipJournal,
) -> Iterator[Result]:
    """Do the work on a block, keep what is new of it, and yield all of it."""
    results: dict[str, Result] = {}
    samples: dict[str, np.ndarray] = {}
    for name, decoded in block:
        try:
            samples[name] = decoded.result()
        except AudioError as error:
            results[name] = {"error": str(error)}
    results |= dict(zip(samples, work(list(samples.values())), strict=True))
    for name, _ in block:
        if journal.find(name) is None:
            journal.add(name, results[name])
        yield results[name]
