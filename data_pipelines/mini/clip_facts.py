"""What is known about a clip when questions are written: class names, transcript, measured style.

Style is a class only where it is clear. The boundary of an axis is the middle between the slow
(low, quiet) end and the fast (high, loud) end of the training split; values near it (the guard
band) have no class and are never asked about.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data_pipelines.measures import speaking_style
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.mini.clip_plan import PlannedClip

# axis -> name below the guard band, name above it
STYLE_AXES = {"pitch": ("low", "high"), "speed": ("slow", "fast"), "volume": ("quiet", "loud")}
_ENDS = (20.0, 80.0)  # percentiles of the training split that stand for the two ends of an axis
_GUARD = (
    0.2  # share of the distance between the ends, on each side of the middle, that has no class
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the question writers may use; "" and missing axes mean unknown or not applicable."""

    clip_id: str
    kind: str
    sound: str = ""
    group: str = ""
    music: str = ""
    gender: str = ""
    spoken_text: str = ""
    style: Mapping[str, str] = dataclasses.field(default_factory=dict)


def style_thresholds(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return, for every axis, the values that bound its guard band, from synthesis records of
    training speech clips.
    """
    styles = [r["style"] for r in records if r["style"] and r["entry"]["kind"] == "speech"]
    result = {}
    for axis, figure in speaking_style.AXES.items():
        known = [style[figure] for style in styles if style[figure] is not None]
        low, high = np.percentile(known, _ENDS)
        middle, guard = (low + high) / 2, _GUARD * (high - low)
        result[axis] = (float(middle - guard), float(middle + guard))
    return result


def style_classes(
    style: Mapping[str, float | None] | None,
    *,
    kind: str,
    thresholds: Mapping[str, tuple[float, float]],
) -> dict[str, str]:
    """Return the clear style classes of a clip; the level of a mixed clip is not the speaker's, so
    it has no volume.
    """
    classes = {}
    for axis, names in STYLE_AXES.items():
        value = None if style is None else style[speaking_style.AXES[axis]]
        if value is None or (axis == "volume" and kind == "joint"):
            continue
        scale = speaking_style.StyleScale(names=names, bands=(thresholds[axis],))
        if name := scale.name_of(value):
            classes[axis] = name
    return classes


def facts(
    record: Mapping[str, Any], *, transcript: str, thresholds: Mapping[str, tuple[float, float]]
) -> Facts:
    """Return the facts of one synthesis record and its transcript."""
    entry = PlannedClip(**record["entry"])
    group = SOUNDS[entry.sound].group if entry.sound else ("animal" if entry.recording else "")
    return Facts(
        clip_id=entry.clip_id,
        kind=entry.kind,
        sound=entry.sound,
        group=group,
        music=entry.music,
        gender=entry.gender,
        spoken_text=transcript,
        style=style_classes(record["style"], kind=entry.kind, thresholds=thresholds),
    )


def tags(facts: Facts) -> tuple[str, ...]:
    """Return the labels the tagging stage learns for this clip."""
    labels = [facts.sound, facts.music]
    if facts.group == "animal":
        labels.append("animal")
    if facts.music:
        labels.append("music")
    if facts.gender:
        labels += ["speech", f"{facts.gender} speech"]
    labels += [f"{value} {axis}" for axis, value in facts.style.items()]
    return tuple(tag for tag in labels if tag)
