"""Where the time of a run goes, with a clock that only moves when the test says so."""

import pytest

from ltu_jax.training.logs import read_rows
from ltu_jax.training.resilience.goodput import PARTS, Clock, goodput
from tests.support.toy_step import Toy, make_toy, train

COMPILE, STEP, DATA, SAVE, COMPARE, VALIDATE = 1000, 7, 5, 100, 3, 50


class Time:
    """Seconds since the start."""

    now = 0.0

    def takes(self, seconds, result=None):
        self.now += seconds
        return result


class Loss:
    """A loss that is done when it is read, and one step later."""

    def __init__(self, loss, *, time, ready):
        self._loss, self._time, self.is_ready = loss, time, lambda: ready

    def __float__(self):
        return float(self._time.takes(STEP, self._loss))


@pytest.fixture(scope="module")
def toy():
    return make_toy()


def timed(toy, run_dir, *, in_flight, bad=()):
    """The outcome of six steps in which everything takes its time, and that time."""
    time, made = Time(), []

    def step_fn(state, frozen, batch, key):
        if not made:
            made.append(time.takes(COMPILE))
        state, metrics = toy.step(state, frozen, batch, key)
        return state, metrics | {"loss": Loss(metrics["loss"], time=time, ready=not in_flight)}

    def through(batches):
        for batch in batches:
            yield time.takes(DATA, batch)

    clock = Clock(part="start", now=lambda: time.now)
    time.takes(11)
    with clock.within("restore"):
        time.takes(13)
    outcome, _ = train(
        Toy(state=toy.state, step=step_fn, mesh=toy.mesh),
        run_dir,
        steps=6,
        bad=set(bad),
        through=through,
        clock=clock,
        hooks={
            "save": lambda state: time.takes(SAVE, run_dir),
            "compare": lambda state: time.takes(COMPARE),
            "validate": lambda state: time.takes(VALIDATE, {}),
        },
    )
    return outcome, time.now


def test_parts_sum_to_the_wall_time(toy, tmp_path):
    outcome, wall = timed(toy, tmp_path, in_flight=False)
    assert sum(outcome.parts.values()) == wall
    assert outcome.parts == {
        "step": 6 * STEP,
        "skipped": 0,
        "start": 11,
        "restore": 13,
        "compile": COMPILE,
        "data": 6 * DATA,
        "compare": 4 * COMPARE,  # at the start and before each of three saves
        "save": 3 * SAVE,
        "validate": VALIDATE,
        "other": 0,
    }
    assert outcome.goodput == 6 * STEP / wall
    rows = [row for row in read_rows(tmp_path / "log.jsonl") if "loss" in row]
    assert rows[-1]["goodput"] == goodput(rows[-1]["seconds_of"])
    assert rows[-1]["seconds_of"]["data"] == 6 * DATA


def test_data_that_comes_while_a_step_is_in_flight_costs_nothing(toy, tmp_path):
    """After a save (two steps) none is in flight: those waits count, three of six."""
    outcome, wall = timed(toy, tmp_path, in_flight=True)
    assert sum(outcome.parts.values()) == wall
    assert outcome.parts["data"] == 3 * DATA
    assert outcome.parts["step"] == 6 * STEP + 3 * DATA


def test_skipped_steps_are_not_useful(toy, tmp_path):
    outcome, wall = timed(toy, tmp_path, in_flight=False, bad=[2, 5])
    assert sum(outcome.parts.values()) == wall
    assert outcome.parts["skipped"] == 2 * STEP and outcome.parts["step"] == 4 * STEP
    assert outcome.skipped == 2


def test_a_clock_knows_its_parts():
    with pytest.raises(ValueError, match="no part 'lunch'; the parts are step, skipped"):
        Clock().turn("lunch")
    assert goodput(dict.fromkeys(PARTS, 0.0)) == 0.0
