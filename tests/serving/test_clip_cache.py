"""A clip that several ask for is heard once, and no longer than somebody waits for it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ltu_jax.generation.request import AnswerMode
from ltu_jax.preprocessing.audio import from_samples
from ltu_jax.serving.clip_batches import ClipBatches
from ltu_jax.serving.clip_cache import ClipCache
from ltu_jax.serving.serving_metrics import ServingMetrics
from tests.serving.scripted import ListeningModel


class Pool:
    """Decodes when it is let to."""

    def __init__(self):
        self.open, self.decoding = asyncio.Event(), 0

    async def decode(self, data, *, most_seconds):
        self.decoding += 1
        try:
            await self.open.wait()
        finally:
            self.decoding -= 1
        return from_samples(np.full(16_000, 0.1, np.float32), rate=16_000, name="clip")


def cached(pool, model, executor) -> ClipCache:
    return ClipCache(
        batches=ClipBatches(whispers=model, executor=executor, most=8), fingerprint="f", pool=pool,
        metrics=ServingMetrics("m"), most_bytes=1 << 20, most_seconds=10,
    )  # fmt: skip


def test_of_many_clips_a_few_are_decoded_at_once():
    async def ask():
        pool, model = Pool(), ListeningModel()
        with ThreadPoolExecutor(1) as executor:
            cache = cached(pool, model, executor)
            waiting = [
                asyncio.ensure_future(cache.hear(b"clip", digest=digest, mode=AnswerMode.JOINT))
                for digest in map(bytes, range(20))
            ]
            await asyncio.sleep(0.01)
            decoding = pool.decoding
            pool.open.set()
            await asyncio.gather(*waiting)
            return decoding, model.heard

    assert asyncio.run(ask()) == (16, 20)


@pytest.mark.parametrize("leaving", [1, 2])
def test_a_clip_is_heard_while_somebody_waits_for_it(leaving):
    async def ask():
        pool, model = Pool(), ListeningModel()
        with ThreadPoolExecutor(1) as executor:
            cache = cached(pool, model, executor)

            def hear():
                return cache.hear(b"clip", digest=b"digest", mode=AnswerMode.JOINT)

            waiting = [asyncio.ensure_future(hear()) for _ in range(2)]
            await asyncio.sleep(0.01)
            assert pool.decoding == 1
            for one in waiting[:leaving]:
                one.cancel()
            await asyncio.sleep(0.01)
            assert pool.decoding == (leaving < 2)
            pool.open.set()
            told = await asyncio.gather(*waiting, hear(), return_exceptions=True)
            return model.heard, told, await hear()

    heard, told, again = asyncio.run(ask())
    assert heard == 1 and again.cached and not told[2].cached
    assert [isinstance(one, asyncio.CancelledError) for one in told[:2]] == [True, leaving == 2]
