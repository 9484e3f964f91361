"""Speaking style: the figure of each axis, and from a figure to a class.

Bounds have guard bands around them without a class: a figure beside a bound could as well belong
on its other side, and a listener would not tell, so nothing is asked about it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.measures.syllables import syllables
from data_pipelines.measures.voice_measures import VoiceMeasures

AXES = {"pitch": "f0_hz", "speed": "syllables_per_second", "volume": "dbfs"}
LEAST_SYLLABLES = 3  # of a text whose pace is told


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakingStyle:
    """How somebody speaks: a figure for each axis of `AXES`, None where there is none."""

    f0_hz: float | None
    syllables_per_second: float | None
    dbfs: float | None


def speaking_style(voice: VoiceMeasures, *, text: str) -> SpeakingStyle:
    """Return the figures of a voice that says `text`."""
    spoken, seconds = syllables(text), voice.speech_seconds
    known = seconds is not None and spoken >= LEAST_SYLLABLES
    return SpeakingStyle(
        f0_hz=voice.f0_hz,
        syllables_per_second=spoken / seconds if known else None,
        dbfs=voice.dbfs,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleScale:
    """The classes of one axis, from low to high.

    Attributes:
        names: of the classes.
        bands: (lower, upper) end of the guard band between each two of them, rising.
    """

    names: tuple[str, ...]
    bands: tuple[tuple[float, float], ...]

    def name_of(self, value: float) -> str:
        """Return the class of a figure; "" within a guard band."""
        place = self.place_of(value)
        return "" if place is None else self.names[place]

    def place_of(self, value: float) -> int | None:
        """Return which class a figure has, counted from the lowest; None within a guard band."""
        for place, (lower, upper) in enumerate(self.bands):
            if value <= lower:
                return place
            if value < upper:
                return None
        return len(self.bands)


def guarded(names: Sequence[str], bounds: Sequence[float], *, guard: float) -> StyleScale:
    """Return the scale of several bounds.

    Args:
        names: one more than there are bounds.
        bounds: rising; at least two.
        guard: half a band, as a share of the narrower class beside its bound; below 0.5.
    """
    widths = np.diff(bounds)
    beside = [
        guard * min(widths[max(0, place - 1)], widths[min(place, len(widths) - 1)])
        for place in range(len(bounds))
    ]
    bands = tuple(
        (float(bound - half), float(bound + half))
        for bound, half in zip(bounds, beside, strict=True)
    )
    return StyleScale(names=tuple(names), bands=bands)
