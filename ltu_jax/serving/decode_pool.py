"""Decoding in processes apart: audio of strangers meets limits, and a crash takes one request.

Each worker is a fresh interpreter (`decode_worker`) with limits of memory, CPU and time. One that
dies, or does not answer in time, is replaced; the request that it had fails by name.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import SAMPLE_RATE, Audio
from ltu_jax.serving.decode_worker import READY, REPLY, REQUEST, SOUND

_CPU_SECONDS = 5.0  # and for each second of audio that is allowed:
_CPU_PER_SECOND = 0.02  # mp3 of 48 kHz takes an eighth of that
_PATIENCE = 3.0  # seconds on the wall for a CPU second, on a busy machine
_STARTING = 60.0
_CHUNK = 1 << 20
_ROOT = Path(__file__).resolve().parent.parent.parent


class DecodeError(UserError):
    """Audio that no worker could decode: too slow, too large, or the decoder crashed on it."""


class WorkerKilled(Exception):
    """A worker that something else ended: no fault of the audio."""


@dataclass(kw_only=True, eq=False)
class DecodePool:
    """Worker processes that decode one file each at a time.

    Attributes:
        workers: how many.
        replaced: workers that had to be replaced so far.
    """

    workers: int
    replaced: int = 0
    _free: asyncio.Queue = field(default_factory=asyncio.Queue)
    _alive: set = field(default_factory=set)
    _tasks: set = field(default_factory=set)
    _closed: bool = False

    async def start(self) -> None:
        """Start every worker; returns when all are ready."""
        for worker in await asyncio.gather(*(self._spawn() for _ in range(self.workers))):
            self._free.put_nowait(worker)

    async def close(self) -> None:
        """End every worker and wait for them."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in list(self._alive):
            await self._end(worker)

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the workers."""
        return tuple(worker.pid for worker in self._alive)

    async def decode(self, data: bytes, *, most_seconds: float) -> Audio:
        """Decode the bytes of a file to 16 kHz mono.

        Raises:
            UserError: not audio, damaged, longer than `most_seconds`, more than the limits.
            WorkerKilled: the worker was ended from outside.
        """
        worker = await self._free.get()
        # A caller that goes away leaves the worker to its file: ending it would cost more.
        work = self._decode(worker, data, most_seconds=most_seconds)
        return await asyncio.shield(self._own(work))

    def _own(self, work: Coroutine) -> asyncio.Task:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Of a caller that is gone nobody reads the error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _decode(
        self, worker: asyncio.subprocess.Process, data: bytes, *, most_seconds: float
    ) -> Audio:
        cpu_seconds = _CPU_SECONDS + _CPU_PER_SECOND * most_seconds
        healthy = False
        try:
            async with asyncio.timeout(_PATIENCE * cpu_seconds):
                kind, body = await _exchange(
                    worker, REQUEST.pack(len(data), most_seconds, cpu_seconds), data
                )
            healthy = kind != b"M"
        except TimeoutError:
            raise DecodeError(
                f"the audio takes more than {_PATIENCE * cpu_seconds:.0f} s to decode; convert it "
                "to wav or flac"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise _death(await worker.wait(), cpu_seconds=cpu_seconds) from None
        finally:
            if healthy:
                self._free.put_nowait(worker)
            elif not self._closed:
                self._own(self._replace(worker))
        if kind == b"E":
            raise UserError(body.decode().removeprefix("<bytes>: "))
        if kind == b"M":
            raise DecodeError("the audio needs too much memory to decode; convert it to wav")
        rate, channels, seconds = SOUND.unpack_from(body)
        samples = np.frombuffer(body, np.float32, offset=SOUND.size)
        assert len(samples) <= most_seconds * SAMPLE_RATE + SAMPLE_RATE
        return Audio(samples=samples, source_rate=rate, source_channels=channels, seconds=seconds)

    async def _spawn(self) -> asyncio.subprocess.Process:
        places = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", "from ltu_jax.serving.decode_worker import main; main()"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_CHUNK,
            start_new_session=True,  # a Ctrl-C is for the server, which ends them
            env={
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": os.pathsep.join(places),
                "MALLOC_ARENA_MAX": "1",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",  # its threads' stacks would count as memory
            },
        )
        self._alive.add(worker)
        try:
            async with asyncio.timeout(_STARTING):
                await worker.stdout.readexactly(len(READY))
        except (TimeoutError, asyncio.IncompleteReadError):
            await self._end(worker)
            raise RuntimeError("a decoding process does not start") from None
        return worker

    async def _replace(self, worker: asyncio.subprocess.Process) -> None:
        self.replaced += 1
        await self._end(worker)
        while True:
            try:
                self._free.put_nowait(await self._spawn())
                return
            except (RuntimeError, OSError):  # no memory or no process left just now
                await asyncio.sleep(1)

    async def _end(self, worker: asyncio.subprocess.Process) -> None:
        self._alive.discard(worker)
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


async def _exchange(
    worker: asyncio.subprocess.Process, head: bytes, data: bytes
) -> tuple[bytes, Any]:
    worker.stdin.write(head)
    for first in range(0, len(data), _CHUNK):
        worker.stdin.write(data[first : first + _CHUNK])
        await worker.stdin.drain()
    kind, size = REPLY.unpack(await worker.stdout.readexactly(REPLY.size))
    body = bytearray(size)  # in pieces: one of minutes would hold up everything else
    for first in range(0, size, _CHUNK):
        last = min(first + _CHUNK, size)
        body[first:last] = await worker.stdout.readexactly(last - first)
    return kind, body


def _death(status: int, *, cpu_seconds: float) -> Exception:
    """The error of a worker that ended in the middle of a file."""
    if status == -signal.SIGXCPU:
        return DecodeError(
            f"the audio takes more than {cpu_seconds:.0f} CPU seconds to decode; convert it to wav"
        )
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        return WorkerKilled("the decoding process was killed; send the request again")
    return DecodeError("the decoder crashed on the audio; convert it to wav or flac")
