"""Decoding apart: the same samples, limits that hold, and workers that die and come again."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.serving import decode_pool
from ltu_jax.serving.decode_pool import DecodeError, DecodePool, WorkerKilled
from tests.preprocessing.making_audio import wav
from tests.serving import hostile_audio

TONE = (3_000 * np.sin(np.arange(44_100) / 9)).astype("<i2").tobytes()
CLIP = wav(TONE, rate=22_050, channels=2)


@pytest.fixture(scope="module")
def running():
    """A loop, and a pool of one worker in it."""
    with asyncio.Runner() as runner:
        pool = DecodePool(workers=1)
        runner.run(pool.start())
        yield runner.run, pool
        runner.run(pool.close())
        assert not pool.pids


def test_samples_are_those_of_the_reader(running):
    run, pool = running
    for clip in (CLIP, hostile_audio.silence(1, format="OGG", subtype="VORBIS")):
        made, known = run(pool.decode(clip, most_seconds=30)), load_audio(clip)
        np.testing.assert_array_equal(made.samples, known.samples)
        assert (made.source_rate, made.source_channels, made.seconds) == (
            known.source_rate, known.source_channels, known.seconds
        )  # fmt: skip


def test_hostile_bytes_are_refused_and_the_worker_lives(running):
    run, pool = running
    before = pool.pids, pool.replaced
    for name, content in hostile_audio.table().items():
        with pytest.raises(UserError) as refused:
            run(pool.decode(content, most_seconds=hostile_audio.MOST_SECONDS))
        assert len(str(refused.value)) < 300, name
    assert (pool.pids, pool.replaced) == before
    (pid,) = pool.pids
    most, _ = resource.prlimit(pid, resource.RLIMIT_AS)
    status = Path(f"/proc/{pid}/status").read_text()
    mapped, peak = (
        int(status.split(f"{name}:")[1].split()[0]) << 10 for name in ("VmSize", "VmHWM")
    )
    assert mapped < most < mapped + (300 << 20) and peak < 200 << 20
    assert "jaxlib" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_worker_that_is_killed_costs_one_request(running):
    run, pool = running
    long = hostile_audio.silence(1_200, format="FLAC")

    async def killed_at_work():
        (pid,) = pool.pids
        first = asyncio.ensure_future(pool.decode(long, most_seconds=3_600))
        second = asyncio.ensure_future(pool.decode(CLIP, most_seconds=30))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(first, second, return_exceptions=True)

    replaced = pool.replaced
    first, second = run(killed_at_work())
    assert isinstance(first, WorkerKilled) and second.seconds == pytest.approx(1, abs=0.01)
    assert pool.replaced == replaced + 1


def test_who_leaves_before_a_worker_is_free_costs_no_work(running, monkeypatch):
    run, pool = running
    begun, exchange = [], decode_pool._exchange

    async def noted(worker, head, data):
        begun.append(data)
        return await exchange(worker, head, data)

    monkeypatch.setattr(decode_pool, "_exchange", noted)
    long, other = hostile_audio.silence(60, format="FLAC"), hostile_audio.silence(1, format="FLAC")

    async def leave():
        first = asyncio.ensure_future(pool.decode(long, most_seconds=3_600))
        second = asyncio.ensure_future(pool.decode(CLIP, most_seconds=30))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await pool.decode(other, most_seconds=30)

    run(leave())
    assert begun == [long, other]


def test_a_worker_that_does_not_answer_is_replaced(running, monkeypatch):
    run, pool = running
    monkeypatch.setattr(decode_pool, "_CPU_SECONDS", 0.05)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DecodeError, match="to decode"):
        run(pool.decode(CLIP, most_seconds=1))
    monkeypatch.undo()
    assert run(pool.decode(CLIP, most_seconds=30)).source_rate == 22_050
    assert pool.pids != (pid,)


def test_a_crash_is_an_error_of_the_audio(running):
    run, pool = running

    async def crashed():
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(pool.decode(CLIP, most_seconds=30))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)
        await waiting

    with pytest.raises(DecodeError, match="crashed"):
        run(crashed())
    assert run(pool.decode(CLIP, most_seconds=30)).source_channels == 2
