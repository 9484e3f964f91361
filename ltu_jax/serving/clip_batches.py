"""Clips that wait together are heard in one batch, in one thread; each is told when it is ready."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from ltu_jax.generation.buckets import BATCH_BUCKETS
from ltu_jax.generation.limits import encoder_rows
from ltu_jax.generation.request import AnswerMode, EncodedClip
from ltu_jax.generation.whispers import Whispers
from ltu_jax.preprocessing.audio import Audio

_MOST = 8  # clips at once: more would let the first of them wait


def batch_sizes(whispers: Whispers) -> tuple[int, ...]:
    """Return the sizes of batches that programs are made for: as many as memory holds."""
    parts = (whispers.listener, whispers.transcriber)
    room = min((encoder_rows(one.whisper.config) for one in parts if one is not None), default=1)
    return tuple(size for size in BATCH_BUCKETS if size <= min(room, _MOST))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    audio: Audio
    mode: AnswerMode
    heard: asyncio.Future

    def tell(self, clip: EncodedClip) -> None:
        if not self.heard.done():  # nobody asks any more
            self.heard.set_result(clip)

    def fail(self, error: BaseException) -> None:
        if not self.heard.done():
            self.heard.set_exception(error)


@dataclass(kw_only=True, eq=False)
class ClipBatches:
    """Hears clips; those that come while others are heard wait, and are then heard together.

    Attributes:
        whispers: hear and write.
        executor: of one thread.
        most: clips of a batch.
    """

    whispers: Whispers
    executor: Executor
    most: int = 1
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _working: asyncio.Task | None = None

    async def listen(self, audio: Audio, *, mode: AnswerMode) -> EncodedClip:
        """Return what is heard of a clip, as soon as its batch has it."""
        loop = asyncio.get_running_loop()
        one = _Waiting(audio=audio, mode=mode, heard=loop.create_future())
        self._waiting.append(one)
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await one.heard

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            try:
                await loop.run_in_executor(self.executor, self._hear, batch, loop)
            except Exception as error:
                await self._one_by_one(batch, error)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self.most:
            one = self._waiting.popleft()
            if not one.heard.done():
                batch.append(one)
        return batch

    def _hear(self, batch: Sequence[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Hear a batch, in the thread."""
        clips, modes = [one.audio for one in batch], [one.mode for one in batch]
        for index, clip in self.whispers.listen_each(clips, modes=modes):
            loop.call_soon_threadsafe(batch[index].tell, clip)

    async def _one_by_one(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Let the clip that a batch failed of fail alone."""
        loop = asyncio.get_running_loop()
        for one in batch:
            if len(batch) == 1:
                one.fail(error)
            elif not one.heard.done():
                try:
                    await loop.run_in_executor(self.executor, self._hear, [one], loop)
                except Exception as own:
                    one.fail(own)
