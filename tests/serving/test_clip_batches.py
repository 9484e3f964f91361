"""Clips that wait are heard together; each is told alone, and fails alone."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ltu_jax.generation.request import AnswerMode
from ltu_jax.preprocessing.audio import from_samples
from ltu_jax.serving.clip_batches import ClipBatches
from tests.serving.scripted import ListeningModel


class HeldModel(ListeningModel):
    """Waits before each batch until it may go on; refuses clips of `hated` seconds."""

    def __init__(self, hated=()):
        super().__init__()
        self.may, self.begun, self.hated = threading.Semaphore(0), threading.Semaphore(0), hated

    def listen_each(self, clips, *, modes):
        self.begun.release()
        assert self.may.acquire(timeout=60)
        for index, clip in super().listen_each(clips, modes=modes):
            if clip.seconds in self.hated:
                raise RuntimeError(f"no clip of {clip.seconds} s")
            yield index, clip


def clip(seconds):
    return from_samples(np.full(int(16_000 * seconds), 0.1, np.float32), rate=16_000, name="clip")


def heard(model, script, *, most=4):
    """Run a script of (batches, ask), in which `ask` begins to listen to clips by their seconds."""

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batches = ClipBatches(whispers=model, executor=executor, most=most)

            async def ask(*seconds):
                tasks = [
                    asyncio.ensure_future(batches.listen(clip(one), mode=AnswerMode.JOINT))
                    for one in seconds
                ]
                await asyncio.sleep(0)
                return tasks

            return await script(ask)

    return asyncio.run(run())


def test_those_that_wait_are_heard_together_as_many_as_may():
    model = HeldModel()

    async def script(ask):
        first = await ask(1)
        await asyncio.to_thread(model.begun.acquire)
        others = await ask(2, 3, 4, 5, 6)
        for _ in range(3):
            model.may.release()
        return await asyncio.gather(*first, *others)

    told = heard(model, script)
    assert [one.seconds for one in told] == [1, 2, 3, 4, 5, 6]
    assert model.together == [1, 4, 1]


def test_who_leaves_while_waiting_is_not_heard():
    model = HeldModel()

    async def script(ask):
        first = await ask(1)
        await asyncio.to_thread(model.begun.acquire)
        second, third = await ask(2, 3)
        second.cancel()
        await asyncio.sleep(0)
        model.may.release()
        model.may.release()
        return await asyncio.gather(*first, third)

    assert [one.seconds for one in heard(model, script)] == [1, 3]
    assert model.together == [1, 1]


def test_a_clip_that_cannot_be_heard_fails_alone():
    model = HeldModel(hated=(3,))

    async def script(ask):
        first = await ask(1)
        await asyncio.to_thread(model.begun.acquire)
        others = await ask(2, 3, 4)
        for _ in range(8):
            model.may.release()
        return await asyncio.gather(*first, *others, *(await ask(5)), return_exceptions=True)

    told = heard(model, script)
    assert [getattr(one, "seconds", None) for one in told] == [1, 2, None, 4, 5]
    with pytest.raises(RuntimeError, match="no clip of 3"):
        raise told[2]
