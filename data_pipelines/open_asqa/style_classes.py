"""The classes of speaking style of a source's clips, relative to its own training clips.

Five classes an axis, between the 10th, 30th, 70th and 90th percentile: of pitch among the speakers
of a gender, of speed and volume among all. `official` bounds of pitch are those of LTU-AS, in Hz.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.measures.speaking_style import AXES, SpeakingStyle, StyleScale, guarded

PERCENTILES = (10, 30, 70, 90)
OFFICIAL_PITCH = {"female": (160.0, 200.0, 220.0, 270.0), "male": (95.0, 120.0, 135.0, 180.0)}
MODES = ("percentile", "official")
ALL = "all"
_NAMES = {
    "pitch": ("very low", "low", "medium", "high", "very high"),
    "speed": ("very slow", "slow", "medium", "fast", "very fast"),
    "volume": ("very low", "low", "medium", "high", "very high"),
}
_NAMES_IN_GENDER = ("very low", "relatively low", "medium", "relatively high", "very high")
# Median pitch in Hz up to which a speaker is taken for male, and from which for female. In between
# are both.
_MALE_TO, _FEMALE_FROM = 145.0, 185.0
_CLIPPED = 0.001  # share of samples
_SAME_PEAK = 0.2  # dB; of recordings that were not normalised, peaks spread over tens of dB
_MANY = 0.1  # share of the clips whose peaks lie so close together only by normalisation
_LEAST_SPREAD = 3.0  # dB between the percentiles 10 and 90 of levels that nobody made equal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipVoice:
    """What was measured of a clip.

    Attributes:
        gender: as its source has it; "" unknown.
        trained: whether it is one of the clips that bounds are made of.
        style: figures of the voice.
        peak: of the file, 0 to 1; clipped: share of its samples.
        problem: why there are no figures; "" where there are.
    """

    gender: str = ""
    trained: bool = True
    style: SpeakingStyle = SpeakingStyle(f0_hz=None, syllables_per_second=None, dbfs=None)
    peak: float = 0.0
    clipped: float = 0.0
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleBounds:
    """The scales of a source's clips, and which levels say nothing.

    Attributes:
        mode: one of `MODES`.
        guard: half a guard band, as a share of a class.
        scales: axis -> gender or "all" -> its scale.
        clips: axis -> gender or "all" -> of how many clips; 0 of official ones.
        normalised_peaks: lowest and highest peak in dB of clips that were made equally high; None
            where there are no such clips.
        equal_levels: whether all clips were made equally loud.
    """

    mode: str
    guard: float
    scales: Mapping[str, Mapping[str, StyleScale]]
    clips: Mapping[str, Mapping[str, int]]
    normalised_peaks: tuple[float, float] | None
    equal_levels: bool

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        scales = {
            axis: {
                who: {
                    "names": list(scale.names),
                    "bounds": [round(sum(band) / 2, 3) for band in scale.bands],
                    "bands": [[round(end, 3) for end in band] for band in scale.bands],
                    "clips": self.clips[axis][who],
                }
                for who, scale in of.items()
            }
            for axis, of in self.scales.items()
        }
        return {
            "mode": self.mode,
            "guard": self.guard,
            "percentiles": list(PERCENTILES),
            "figures": dict(AXES),
            "scales": scales,
            "normalised_peaks": self.normalised_peaks,
            "equal_levels": self.equal_levels,
        }


def make_bounds(
    voices: Iterable[ClipVoice], *, mode: str, guard: float, least_clips: int
) -> StyleBounds:
    """Return the bounds of a source.

    Args:
        voices: of all its clips.
        mode: one of `MODES`.
        guard: half a guard band, as a share of the narrower class beside a bound.
        least_clips: of fewer training clips there is no scale.
    """
    figures: dict[tuple[str, str], list[float]] = {}
    levels, peaks = [], []
    for voice in voices:
        if voice.problem or not voice.trained:
            continue
        for axis, name in AXES.items():
            value = getattr(voice.style, name)
            if value is None or (axis == "volume" and voice.clipped > _CLIPPED):
                continue
            figures.setdefault((axis, ALL), []).append(value)
            if axis == "pitch" and voice.gender:
                figures.setdefault((axis, voice.gender), []).append(value)
            if axis == "volume":
                levels.append((value, _decibels(voice.peak)))
    scales: dict[str, dict[str, StyleScale]] = {axis: {} for axis in AXES}
    clips: dict[str, dict[str, int]] = {axis: {} for axis in AXES}
    peaks = _same_peaks([peak for _, peak in levels])
    free = [level for level, peak in levels if peaks is None or not _within(peak, peaks)]
    figures[("volume", ALL)] = free
    for (axis, who), values in sorted(figures.items()):
        if len(values) >= max(least_clips, 2):
            names = _NAMES[axis] if who == ALL else _NAMES_IN_GENDER
            bounds = [float(value) for value in np.percentile(values, PERCENTILES)]
            scales[axis][who] = guarded(names, bounds, guard=guard)
            clips[axis][who] = len(values)
    if mode == "official":
        for gender, bounds in OFFICIAL_PITCH.items():
            scales["pitch"][gender] = guarded(_NAMES_IN_GENDER, bounds, guard=guard)
            clips["pitch"][gender] = 0
    spread = np.ptp(np.percentile(free, (10, 90))) if free else 0.0
    return StyleBounds(
        mode=mode,
        guard=guard,
        scales=scales,
        clips=clips,
        normalised_peaks=peaks,
        equal_levels=len(free) >= max(least_clips, 2) and bool(spread < _LEAST_SPREAD),
    )


def classify(voice: ClipVoice, bounds: StyleBounds, *, guess_gender: bool) -> dict[str, Any]:
    """Return what style.jsonl says of a clip: classes, figures, and why axes have no class.

    Args:
        voice: the clip.
        bounds: of its source.
        guess_gender: tell the gender by the pitch where the source does not.
    """
    row: dict[str, Any] = {}
    without: dict[str, str] = {}
    style = voice.style
    gender = voice.gender
    if not gender and guess_gender and style.f0_hz is not None:
        gender = gender_of_pitch(style.f0_hz)
        if gender:
            row |= {"gender": gender, "gender_by": "pitch"}
    # A gender that is itself told by the pitch says nothing about it, but in the official way.
    among = gender if voice.gender or bounds.mode == "official" else ALL
    for axis, name in AXES.items():
        value = getattr(style, name)
        who = among if axis == "pitch" else ALL
        scale = bounds.scales[axis].get(who)
        without[axis] = _why_not(voice, value, axis, scale, bounds)
        if not without[axis]:
            place = scale.place_of(value)
            if place is None:
                without[axis] = "between two classes"
            else:
                row[axis] = scale.names[place]
                if axis == "pitch" and who != ALL:
                    row["pitch_hz"] = _ends(scale, place)
    overall = bounds.scales["pitch"].get(ALL)
    if style.f0_hz is not None and overall is not None:
        row["pitch_among_all"] = overall.name_of(style.f0_hz)
    for name, digits in (("f0_hz", 1), ("syllables_per_second", 2), ("dbfs", 1)):
        if getattr(style, name) is not None:
            row[name] = round(getattr(style, name), digits)
    reasons = {axis: reason for axis, reason in without.items() if reason}
    return {key: value for key, value in row.items() if value} | (
        {"without": reasons} if reasons else {}
    )


def gender_of_pitch(f0_hz: float) -> str:
    """Return male or female by the median pitch of a voice; "" where both are likely."""
    return "male" if f0_hz <= _MALE_TO else "female" if f0_hz >= _FEMALE_FROM else ""


def _why_not(
    voice: ClipVoice,
    value: float | None,
    axis: str,
    scale: StyleScale | None,
    bounds: StyleBounds,
) -> str:
    """Return why an axis of a clip has no class; "" where it may have one."""
    if voice.problem:
        return voice.problem
    if value is None:
        return {"pitch": "too little voice", "speed": "no words or no clear speech"}.get(
            axis, "no clear speech"
        )
    if axis == "volume":
        if voice.clipped > _CLIPPED:
            return "clipped"
        peaks = bounds.normalised_peaks
        if bounds.equal_levels or (peaks and _within(_decibels(voice.peak), peaks)):
            return "normalised"
    if scale is None:
        unknown = axis == "pitch" and bounds.mode == "official" and not voice.gender
        return "gender unknown" if unknown else "too few clips"
    return ""


def _ends(scale: StyleScale, place: int) -> list[float | None]:
    """Return the bounds of a class; None where it has none."""
    bounds = [round(sum(band) / 2, 1) for band in scale.bands]
    return [
        bounds[place - 1] if place else None,
        bounds[place] if place < len(bounds) else None,
    ]


def _same_peaks(peaks: Sequence[float]) -> tuple[float, float] | None:
    """Return the narrow range of dB that holds many more peaks than chance would put there."""
    if not peaks:
        return None
    ordered = np.sort(peaks)
    held = np.searchsorted(ordered, ordered + _SAME_PEAK, side="right") - np.arange(len(ordered))
    first = int(held.argmax())
    if held[first] < max(_MANY * len(ordered), 10):
        return None
    return float(ordered[first]), float(ordered[first + held[first] - 1])


def _within(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] <= value <= ends[1]


def _decibels(peak: float) -> float:
    return float(20 * np.log10(max(peak, 1e-6)))


def count_classes(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Count the classes of each axis, and the reasons of those without one."""
    counts: dict[str, Counter[str]] = {axis: Counter() for axis in AXES}
    for row in rows:
        for axis, of in counts.items():
            of[row.get(axis) or f"none: {row['without'][axis]}"] += 1
    return counts
