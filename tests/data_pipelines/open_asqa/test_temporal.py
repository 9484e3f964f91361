"""Temporal answers are derived again from the events, the slow way."""

import re

import numpy as np
import pytest

from data_pipelines.open_asqa import temporal
from data_pipelines.open_asqa.source_clip import SoundEvent

LABELS = ("Dog", "Speech", "Gurgling, bubbling", "Car", "Music", "Rain")
_SPAN = re.compile(r"\[(\d+\.\d)s-(\d+\.\d)s\]")


def random_events(rng) -> list[SoundEvent]:
    """Up to eight events, some of them at the same times, on a grid of 10 or of 100 ms."""
    grid = rng.choice([100, 10])
    events = []
    for _ in range(rng.integers(1, 9)):
        start, end = sorted(rng.integers(0, 10 * 1000 // grid, 2) * grid / 1000)
        events.append(SoundEvent(start=start, end=end, label=str(rng.choice(LABELS))))
    return events


def audible(events, label) -> np.ndarray:
    """Return for each millisecond whether a class is heard, both ends of an event among them."""
    heard = np.zeros(10_002, bool)
    for event in events:
        if event.label == label:
            heard[round(event.start * 1000) : round(event.end * 1000) + 1] = True
    return heard


def runs(heard: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last millisecond of each run."""
    steps = np.diff(heard.astype(int), prepend=0)
    return list(zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1, strict=True))


def check(question, events):
    """Derive an answer again from milliseconds in which each class is heard."""
    labels = {event.label for event in events}
    heard = {label: audible(events, label) for label in labels}
    start = {label: int(np.argmax(own)) for label, own in heard.items()}
    event = question.values.get("event")
    if question.task in ("temporal", "temporal_single"):
        asked = labels if question.task == "temporal" else {event}
        text = question.answer
        for label in asked:
            own = re.search(re.escape(label) + r": ((?:\[[^\]]*\](?:, )?)+)", text)[1]
            spans = [tuple(map(float, span)) for span in _SPAN.findall(own)]
            true = runs(heard[label])
            assert len(spans) == len(true)
            for (start, end), (first, last) in zip(spans, true, strict=True):
                assert start < end
                assert 0 <= first - 1000 * start < 100 + 1e-6
                assert -1e-6 <= 1000 * end - last < 100 + 1e-6 or last == first
        return
    if question.wording == "temporal_order_first":
        first = question.answer.removeprefix("First sound event: ").rstrip(".")
        assert all(start[x] - start[first] >= 299 for x in labels - {first})
    elif question.wording == "temporal_order_last":
        last = question.answer.removeprefix("Last sound event to begin: ").rstrip(".")
        assert all(start[last] - start[x] >= 299 for x in labels - {last})
    elif question.task == "temporal_count":
        assert question.answer == f"Number of occurrences: {len(runs(heard[event]))}."
        true = runs(heard[event])
        gaps = [after[0] - before[1] for before, after in zip(true, true[1:], strict=False)]
        assert all(gap >= 299 for gap in gaps)
    elif question.task == "temporal_overlap":
        shared = runs(heard[event] & heard[question.values["other"]])
        longest = max((last - first for first, last in shared), default=0)
        assert question.answer.startswith("Yes" if longest >= 299 else "No")
        assert longest >= 299 or longest == 0
    else:
        assert question.task == "temporal_presence"
        assert question.answer.startswith("Yes" if event in labels else "No")


def test_every_answer_is_true_of_the_events():
    rng = np.random.default_rng(0)
    tasks = set()
    for number in range(10_000):
        events = random_events(rng)
        absent = [label for label in LABELS if label not in {event.label for event in events}]
        for question in temporal.questions(events, absent=absent, names=("0", str(number))):
            check(question, events)
            tasks.add((question.wording, question.answer[:2]))
    assert {wording for wording, _ in tasks} == {
        "temporal", "temporal_single", "temporal_order_first", "temporal_order_last",
        "temporal_count", "temporal_overlap", "temporal_presence",
    }  # fmt: skip
    for wording in ("temporal_overlap", "temporal_presence"):
        assert {(wording, "Ye"), (wording, "No")} <= tasks


@pytest.mark.parametrize(
    ("onset", "answers"),
    [(1.2, []), (1.4, ["First sound event: Dog.", "Last sound event to begin: Car."])],
)
def test_onsets_closer_than_an_annotator_can_tell_have_no_order(onset, answers):
    events = [
        SoundEvent(start=1.0, end=3.0, label="Dog"),
        SoundEvent(start=onset, end=4.0, label="Car"),
    ]
    asked = temporal.questions(events, absent=(), names=("0",))
    assert [q.answer for q in asked if q.task == "temporal_order"] == answers


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [(1.37, 1.41, "[1.3s-1.5s]"), (1.4, 1.4, "[1.4s-1.5s]"), (0.0, 10.0, "[0.0s-10.0s]")],
)
def test_times_are_tenths_that_hold_the_event(start, end, text):
    assert temporal.spans([(start, end)]) == text
