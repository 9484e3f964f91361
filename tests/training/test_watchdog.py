"""A run that stands still ends itself with the stacks of its threads; others are left alone."""

from pathlib import Path

import pytest

from ltu_jax.core.paths import as_path
from ltu_jax.training.resilience import watchdog
from ltu_jax.training.resilience.goodput import PARTS, Clock
from ltu_jax.training.resilience.watchdog import STALLED, Watchdog
from tests.support.bucket import NAME
from tests.support.golden_model import guard_config
from tests.support.tiny_stage import processes

HERE = Path(__file__).resolve().parent


def run(folder, *arguments):
    (ended,) = processes([str(HERE / "stalls.py"), str(folder), *arguments], devices=1)
    return ended


def test_a_stuck_iterator_is_found_and_a_running_one_is_not(tmp_path):
    stuck, running = run(tmp_path / "stuck", "stuck"), run(tmp_path / "running")
    assert stuck.returncode == STALLED, stuck.stderr
    assert "error: stage3: no sign of life for 3." in stuck.stderr
    assert "in part 'data'" in stuck.stderr
    report = (tmp_path / "stuck" / "stall-0.txt").read_text()
    for text in (stuck.stderr, report):  # every thread, the main one where it waits
        assert "in never_comes" in text and "trainer.py" in text and "in _watch" in text
    assert (running.returncode, running.stdout) == (0, "done 40\n"), running.stderr
    assert not (tmp_path / "running" / "stall-0.txt").exists()


class Looks:
    """In place of an event: time goes on by `gaps` between looks, and then it is closed."""

    def __init__(self, *gaps):
        self.gaps, self.now = list(gaps), 0.0

    def wait(self, seconds):
        if not self.gaps:
            return True
        self.now += self.gaps.pop(0)
        return False


def ends(
    tmp_path, monkeypatch, *gaps, alive=lambda dog: None, median=0.0, part="step", report=None
):
    """With which status a watchdog of 10 s ends its process after these looks, and where."""
    looks, ended = Looks(*gaps), []
    clock = Clock(part=part, now=lambda: looks.now)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: looks.now)
    dog = Watchdog(
        clock,
        config=guard_config(stall_seconds=10.0, stall_factor=10.0, stall_busy_seconds=100.0),
        median=lambda: median,
        report=report or tmp_path / "stall.txt",
        title="test",
        end=lambda status: ended.append((status, round(looks.now))),
    )
    wait = looks.wait
    looks.wait = lambda seconds: (alive(dog), wait(seconds))[1]
    dog._closed = looks
    dog._watch()
    return ended


def test_the_limit_is_ten_medians_the_floor_or_that_of_long_parts(tmp_path, monkeypatch):
    def end(**given):
        return ends(tmp_path, monkeypatch, *[1.0] * 200, **given)

    # The first look only begins to count.
    assert end() == [(STALLED, 12)]
    assert end(median=0.5) == [(STALLED, 12)]
    assert end(median=5.0) == [(STALLED, 52)]
    assert end(part="data") == [(STALLED, 12)]
    for part in set(PARTS) - {"step", "data"}:
        assert end(part=part) == [(STALLED, 102)]


def test_signs_of_life_begin_the_time_anew(tmp_path, monkeypatch):
    assert not ends(tmp_path, monkeypatch, *[1.0] * 200, alive=Watchdog.beat)
    assert not ends(tmp_path, monkeypatch, *[1.0] * 200, alive=lambda dog: dog._clock.turn("data"))


def test_time_that_nobody_lived_through_does_not_count(tmp_path, monkeypatch):
    """A process that was stopped for an hour; then it has its ten seconds still."""
    assert not ends(tmp_path, monkeypatch, 1.0, 3600.0, 1.0, 1.0)
    assert ends(tmp_path, monkeypatch, 1.0, 3600.0, *[1.0] * 20) == [(STALLED, 3610)]


@pytest.mark.parametrize("seconds", [0.0])
def test_no_limit_no_thread(seconds, tmp_path):
    dog = Watchdog(
        Clock(),
        config=guard_config(stall_seconds=seconds),
        median=lambda: 0.0,
        report=tmp_path / "stall.txt",
        title="test",
    )
    with dog:
        assert not dog._thread.is_alive()


@pytest.mark.parametrize("there", [True, False])
def test_stacks_of_a_run_in_a_bucket_are_in_it_and_a_bucket_that_is_gone_ends_it_too(
    there, bucket, tmp_path, monkeypatch
):
    if not there:
        bucket.vanish()
    report = as_path(f"gs://{NAME}/runs/a/stall-0.txt")
    assert ends(tmp_path, monkeypatch, *[1.0] * 20, report=report) == [(STALLED, 12)]
    assert bucket.names() == (["runs/a/stall-0.txt"] if there else [])
    if there:
        text = bucket.content("runs/a/stall-0.txt").decode()
        assert "no sign of life" in text and "in _watch" in text
