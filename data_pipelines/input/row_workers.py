"""Processes that make rows: decoding and tokenising take other cores than the trainer's loop.

A worker is an interpreter of its own (never a fork: JAX has threads) with neither JAX nor
TensorFlow in it, below 100 MB. It has some channels, each a socket with a thread behind it that
takes the plan of a row, reads its records, and makes the row when it is the thread's turn. So while
one row is computed the records of others are being read, which a bucket needs: it answers late.
Rows come back in memory that both processes map, a file without a name, so nothing is left of it
after a kill.

A worker ends when a channel does, so also when the trainer is killed. It ignores the signals that
a whole group gets: the trainer decides. One that ends on its own is an error that names it.
"""

import contextlib
import dataclasses
import faulthandler
import functools
import mmap
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.input.rows import LostRecords, RowMaker, RowPlan
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import is_remote, reason

_AHEAD, _AHEAD_REMOTE = 2, 8  # channels of a worker: one row is made, the others are being read
_ALIGNED = 64  # bytes
_PATIENCE = 10.0  # seconds that a worker has to end
_CLOSED = (EOFError, OSError, pickle.UnpicklingError)  # what reading a closed channel raises


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Channel:
    """One row at a time: plans go out, answers come in, the row lies in `views`."""

    worker: int
    process: subprocess.Popen
    socket: socket.socket
    answers: BinaryIO
    views: list[np.ndarray]


class RowWorkers:
    """The worker processes of one stream of rows."""

    def __init__(self, maker: RowMaker, *, workers: int):
        """Start the processes; they take a moment to come up, which the first rows wait for.

        Args:
            maker: what makes rows of plans; a copy goes to each of them.
            workers: how many.

        Raises:
            UserError: the system lets so many not be started.
        """
        self._workers, blank = workers, maker.blank()
        ahead = _AHEAD_REMOTE if is_remote(maker.config.records) else _AHEAD
        self._channels: list[_Channel] = []
        try:
            with tempfile.TemporaryFile() as spec:
                pickle.dump(maker, spec)
                spec.flush()
                for worker in range(workers):
                    self._channels += _start(worker, spec=spec, blank=blank, channels=ahead)
        except OSError as error:  # no descriptor, process or memory is left
            self._stop()
            raise UserError(
                f"input worker {len(self._channels) // ahead + 1} of {workers} (data.workers) "
                f"cannot be started: {reason(error)}; use fewer, or raise the limit (`ulimit -a`)"
            ) from error
        self._free: queue.SimpleQueue[_Channel] = queue.SimpleQueue()
        for place in range(ahead):  # the first rows go to all workers
            for channel in self._channels[place::ahead]:
                self._free.put(channel)

    @property
    def at_once(self) -> int:
        """Rows that can be in the making."""
        return len(self._channels)

    def fixed(self, plan: RowPlan) -> tuple[list[np.ndarray] | None, LostRecords]:
        """Have a row made as `RowMaker.fixed` makes it; for many threads at once.

        Raises:
            UserError: the worker has ended.
        """
        channel = self._free.get()
        try:
            channel.socket.sendall(pickle.dumps(plan))
            made, lost = pickle.load(channel.answers)
            return [view.copy() for view in channel.views] if made else None, lost
        except _CLOSED:
            raise UserError(self._ending(channel)) from None
        finally:
            self._free.put(channel)

    def _ending(self, channel: _Channel) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            channel.process.wait(_PATIENCE)
        status, advice = channel.process.returncode, "its reason stands on stderr"
        how = "answers no more" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            advice = "a system that is short of memory does that: free some, or use fewer"
        return (
            f"input worker {channel.worker + 1} of {self._workers} (process {channel.process.pid}, "
            f"data.workers) {how}; {advice}, and start the command again, it goes on from its last "
            "checkpoint"
        )

    def close(self) -> None:
        """End the processes and wait for them."""
        self._stop()
        for _ in self._channels:  # threads that waited for a row have let go of its channel
            channel = self._free.get()
            channel.answers.close()
            channel.socket.close()

    def _stop(self) -> None:
        for channel in self._channels:
            with contextlib.suppress(OSError):  # its worker has ended
                channel.socket.shutdown(socket.SHUT_RDWR)
        for channel in self._channels:
            try:
                channel.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                channel.process.kill()
                channel.process.wait()


def _start(
    worker: int, *, spec: BinaryIO, blank: Sequence[np.ndarray], channels: int
) -> list[_Channel]:
    """Start a worker and return its channels."""
    pairs = [socket.socketpair() for _ in range(channels)]
    row = sum(_room(array) for array in blank)
    with _nameless(row * channels) as file, contextlib.ExitStack() as theirs:
        memory = mmap.mmap(file.fileno(), row * channels)
        files = [theirs.enter_context(their).fileno() for _, their in pairs]
        files = [spec.fileno(), file.fileno(), *files]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "data_pipelines.input.row_workers", *map(str, files)],
            pass_fds=files,
            env=os.environ | _environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
    return [
        _Channel(
            worker=worker,
            process=process,
            socket=ours,
            answers=ours.makefile("rb"),
            views=_views(memory, place, blank),
        )
        for place, (ours, _) in enumerate(pairs)
    ]


def _environment() -> dict[str, str]:
    """Return the variables of a worker: our modules, and one thread, as there are many workers."""
    folders = (folder for folder in sys.path if isinstance(folder, str))  # as imports have it
    path = os.pathsep.join(folder or os.getcwd() for folder in folders)
    return {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def _nameless(size: int) -> Iterator[BinaryIO]:
    """Open a file that ends with the last process that has it, in memory where that can be."""
    opened = tempfile.TemporaryFile
    if hasattr(os, "memfd_create"):  # Linux; not bounded by /dev/shm, which is small in containers
        opened = functools.partial(os.fdopen, os.memfd_create("rows"), "w+b")
    with opened() as file:
        file.truncate(size)
        yield file


def _room(array: np.ndarray) -> int:
    return -(-array.nbytes // _ALIGNED) * _ALIGNED


def _views(memory: mmap.mmap, place: int, blank: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays of the row of a channel, which lies at `place` in the shared memory."""
    offset, views = place * sum(_room(array) for array in blank), []
    for array in blank:
        views.append(np.ndarray(array.shape, array.dtype, buffer=memory, offset=offset))
        offset += _room(array)
    return views


# --- in a worker ----------------------------------------------------------------------------------


def serve(spec: int, memory: int, *channels: int) -> None:
    """Make rows until a channel is closed."""
    faulthandler.enable()  # a decoder that crashes is named on stderr
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.excepthook = _end
    with os.fdopen(spec, "rb") as file:
        maker = pickle.loads(os.pread(file.fileno(), os.fstat(spec).st_size, 0))
    blank = maker.blank()
    shared = mmap.mmap(memory, sum(_room(array) for array in blank) * len(channels))
    turn = threading.Lock()
    for place, channel in enumerate(channels):
        arguments = (maker, socket.socket(fileno=channel), _views(shared, place, blank), turn)
        threading.Thread(target=_answer, args=arguments).start()


def _answer(
    maker: RowMaker, channel: socket.socket, views: list[np.ndarray], turn: threading.Lock
) -> None:
    with channel.makefile("rb") as plans:
        while True:
            try:
                plan = pickle.load(plans)
            except _CLOSED:
                os._exit(0)  # the other threads have nobody to work for either
            fetched = maker.fetch(plan)
            with turn:
                columns, lost = maker.fixed(plan, fetched)
            for view, column in zip(views, columns or (), strict=False):
                view[...] = column
            try:
                channel.sendall(pickle.dumps((columns is not None, lost)))
            except OSError:
                os._exit(0)


def _end(failure: Any) -> None:
    """End the process with what one of its threads could not do."""
    threading.__excepthook__(failure)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
