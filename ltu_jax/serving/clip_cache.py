"""What was heard of clips, kept by their bytes: the next question about one needs no Whisper.

The key is the SHA-256 of the file's bytes, the mode, and the model's fingerprint. Of the file
itself, and of its samples, nothing is kept.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from ltu_jax.generation.request import AnswerMode, EncodedClip
from ltu_jax.serving.clip_batches import ClipBatches
from ltu_jax.serving.decode_pool import DecodePool
from ltu_jax.serving.serving_metrics import ServingMetrics

_MOST_DECODED = 16  # clips at once, of up to 38 MB: a batch is heard, the next is at hand
_OVERHEAD = 1_000  # bytes of an entry beside its features


@dataclass(frozen=True, kw_only=True)
class HeardClip:
    """A clip that was heard: `cached` if before this request; seconds that it took."""

    clip: EncodedClip
    cached: bool
    decoding: float
    listening: float


@dataclass(kw_only=True, eq=False)
class _Coming:
    """A clip that is being heard, and how many requests wait for it."""

    task: asyncio.Task
    awaited: int = 0


@dataclass(kw_only=True, eq=False)
class ClipCache:
    """Decodes and hears clips, and keeps what came of it, least recently used first out.

    Attributes:
        batches: hears them.
        fingerprint: of the model's files.
        most_bytes: of what is kept.
        most_seconds: of a clip.
    """

    batches: ClipBatches
    fingerprint: str
    pool: DecodePool
    metrics: ServingMetrics
    most_bytes: int
    most_seconds: float
    bytes: int = 0
    _kept: OrderedDict = field(default_factory=OrderedDict)
    _coming: dict = field(default_factory=dict)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_DECODED))

    async def hear(self, data: bytes, *, digest: bytes, mode: AnswerMode) -> HeardClip:
        """Return what the model hears of a file of this SHA-256.

        One that others just ask for too is heard once.

        Raises:
            UserError: not audio, damaged, or too long.
            WorkerKilled: decoding was ended from outside.
        """
        key = (digest, mode, self.fingerprint)
        if (clip := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            self.metrics.heard.labels("hit").inc()
            return HeardClip(clip=clip, cached=True, decoding=0.0, listening=0.0)
        coming = self._coming.get(key)
        if coming is None:
            coming = _Coming(task=asyncio.ensure_future(self._hear(data, mode=mode)))
            self._coming[key] = coming
            coming.task.add_done_callback(lambda done: self._arrived(key, coming))
        self.metrics.heard.labels("miss").inc()
        coming.awaited += 1
        try:
            return await asyncio.shield(coming.task)
        finally:
            coming.awaited -= 1
            if not coming.awaited and not coming.task.done():
                coming.task.cancel()  # all who asked have gone
                self._forget(key, coming)

    async def _hear(self, data: bytes, *, mode: AnswerMode) -> HeardClip:
        async with self._places:
            return await self._decoded_and_heard(data, mode=mode)

    async def _decoded_and_heard(self, data: bytes, *, mode: AnswerMode) -> HeardClip:
        start = time.monotonic()
        audio = await self.pool.decode(data, most_seconds=self.most_seconds)
        decoded = time.monotonic()
        clip = await self.batches.listen(audio, mode=mode)
        self.metrics.audio_seconds.inc(clip.seconds or 0)
        return HeardClip(
            clip=clip,
            cached=False,
            decoding=decoded - start,
            listening=time.monotonic() - decoded,
        )

    def _forget(self, key: tuple[Any, ...], coming: "_Coming") -> None:
        if self._coming.get(key) is coming:
            del self._coming[key]

    def _arrived(self, key: tuple[Any, ...], coming: "_Coming") -> None:
        self._forget(key, coming)
        if coming.task.cancelled() or coming.task.exception() is not None:
            return
        clip = coming.task.result().clip
        self._kept[key] = clip
        self.bytes += _size(clip)
        while self.bytes > self.most_bytes and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= _size(oldest)


def _size(clip: EncodedClip) -> int:
    features = 0 if clip.features is None else clip.features.nbytes
    return features + 4 * len(clip.spoken_text) + _OVERHEAD
