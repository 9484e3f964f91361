"""Questions about when and in which order sounds occur, from complete labels with times.

Times are written in tenths of a second, starts rounded down and ends up, so that no interval is
empty. Nothing is asked that a tenth or two of an annotator's care would decide: the order of onsets
within `LEAST_GAP`, an overlap shorter than that.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.source_clip import SoundEvent

LEAST_GAP = 0.3  # seconds
MOST_COUNTED = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A question before it is worded: its task, which wordings, what is filled in, the answer."""

    task: str
    wording: str
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    answer: str


def questions(
    events: Sequence[SoundEvent], *, absent: Sequence[str], names: Sequence[str]
) -> list[Question]:
    """Return the temporal questions that a clip's events allow.

    Args:
        events: every occurrence of every class.
        absent: classes that are surely not there.
        names: by which classes are drawn: seed and clip.
    """
    intervals = by_label(events)
    if not intervals:
        return []
    asked = [
        Question(task="temporal", wording="temporal", answer=f"Sound events: {listed(intervals)}."),
        _single(intervals, names),
        *_order(intervals),
        _count(intervals, names),
        *_overlap(intervals, names),
        _presence(intervals, absent, names),
    ]
    return [question for question in asked if question is not None]


def by_label(events: Sequence[SoundEvent]) -> dict[str, list[tuple[float, float]]]:
    """Return class -> its intervals by start, those that touch as one; classes by first start."""
    intervals: dict[str, list[tuple[float, float]]] = {}
    for event in sorted(events):
        own = intervals.setdefault(event.label, [])
        if own and event.start <= own[-1][1]:
            own[-1] = (own[-1][0], max(own[-1][1], event.end))
        else:
            own.append((event.start, event.end))
    return intervals


def spans(intervals: Sequence[tuple[float, float]]) -> str:
    """Write intervals: "[0.0s-1.4s], [3.1s-4.0s]"."""
    return ", ".join(f"[{_down(start):.1f}s-{_up(start, end):.1f}s]" for start, end in intervals)


def listed(intervals: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Write all events: "Dog: [0.0s-1.4s]; Speech: [2.0s-9.9s]"."""
    return "; ".join(f"{label}: {spans(own)}" for label, own in intervals.items())


def _down(time: float) -> float:
    return math.floor(round(time * 10, 6)) / 10


def _up(start: float, end: float) -> float:
    return max(math.ceil(round(end * 10, 6)) / 10, _down(start) + 0.1)


def _single(intervals: Mapping, names: Sequence[str]) -> Question:
    event = draw.choose(list(intervals), *names, "temporal_single")
    return Question(
        task="temporal_single",
        wording="temporal_single",
        values={"event": event},
        answer=f"{event}: {spans(intervals[event])}.",
    )


def _order(intervals: Mapping) -> list[Question]:
    """Ask for the first and the last class to begin, where it is alone there."""
    if len(intervals) < 2:
        return []
    starts = sorted((own[0][0], label) for label, own in intervals.items())
    asked = []
    if starts[1][0] - starts[0][0] >= LEAST_GAP:
        asked.append(("temporal_order_first", f"First sound event: {starts[0][1]}."))
    if starts[-1][0] - starts[-2][0] >= LEAST_GAP:
        asked.append(("temporal_order_last", f"Last sound event to begin: {starts[-1][1]}."))
    return [
        Question(task="temporal_order", wording=wording, answer=answer) for wording, answer in asked
    ]


def _count(intervals: Mapping, names: Sequence[str]) -> Question | None:
    """Ask how often a class occurs whose occurrences are clearly apart."""
    clear = [
        label
        for label, own in intervals.items()
        if len(own) <= MOST_COUNTED
        and all(
            after[0] - before[1] >= LEAST_GAP for before, after in zip(own, own[1:], strict=False)
        )
    ]
    if not clear:
        return None
    event = draw.choose(clear, *names, "temporal_count")
    return Question(
        task="temporal_count",
        wording="temporal_count",
        values={"event": event},
        answer=f"Number of occurrences: {len(intervals[event])}.",
    )


def _overlap(intervals: Mapping, names: Sequence[str]) -> list[Question]:
    pairs = []
    labels = list(intervals)
    for place, event in enumerate(labels):
        for other in labels[place + 1 :]:
            shared = overlap(intervals[event], intervals[other])
            if shared == 0 or shared >= LEAST_GAP:
                pairs.append((event, other, shared > 0))
    if not pairs:
        return []
    event, other, yes = draw.choose(pairs, *names, "temporal_overlap")
    answer = f"{'Yes' if yes else 'No'}, {event} and {other} {'do' if yes else 'do not'} overlap."
    return [
        Question(
            task="temporal_overlap",
            wording="temporal_overlap",
            values={"event": event, "other": other},
            answer=answer,
        )
    ]


def overlap(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Return the longest time in seconds that an interval of each has in common."""
    shared = (min(a[1], b[1]) - max(a[0], b[0]) for a in one for b in other)
    return max(0.0, *shared) if one and other else 0.0


def _presence(intervals: Mapping, absent: Sequence[str], names: Sequence[str]) -> Question | None:
    """Ask whether a class is heard: of half of the clips one that is not.

    Where nothing is known to be absent nothing is asked, as the answer would always be yes.
    """
    if not absent:
        return None
    there = draw.fraction(*names, "temporal_presence") < 0.5
    options = list(intervals) if there else list(absent)
    event = draw.choose(options, *names, "temporal_presence", "event")
    heard = f"Yes, {event} is heard." if there else f"No, {event} is not heard."
    return Question(
        task="temporal_presence",
        wording="temporal_presence",
        values={"event": event},
        answer=heard,
    )
