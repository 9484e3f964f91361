"""Work spread over processes, of which none outlives the one that started them."""

import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ltu_jax.core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 8  # items a process that are handed out before their turn


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Yield the results of all items, in any order; one worker is this process itself.

    Raises:
        UserError: a process was killed.
    """
    if workers == 1:
        yield from map(work, items)
        return
    source = iter(items)
    with pool_of(workers) as pool:
        pending: set[concurrent.futures.Future[Result]] = set()
        try:
            while True:
                free = _AHEAD * workers - len(pending)
                pending |= {pool.submit(work, item) for item in itertools.islice(source, free)}
                if not pending:
                    return
                done, pending = concurrent.futures.wait(
                    pending, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, mostly for want of memory: run the same command "
                "again with fewer --workers; it goes on where it stopped"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def pool_of(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """Return so many processes, which end when this one does, even by a kill."""
    context = multiprocessing.get_context("spawn")  # never a fork: libraries have threads
    return concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even by a kill."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
