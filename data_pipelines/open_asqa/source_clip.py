"""A clip as its source describes it: the one form that all question writers work from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_pipelines.real.recording_table import SPEECH

# Facts that a clip may have, and those that questions about speech need.
FACTS = (
    "labels", "events", "captions", "gold_text", "gender", "age", "emotion", "score", "negative",
    "genres", "title", "tags",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, order=True, kw_only=True)
class SoundEvent:
    """A class that is heard from `start` to `end`, in seconds from the beginning of the clip."""

    start: float
    end: float
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """What a source says of one clip.

    Attributes:
        source: name in the registry.
        clip_id: unique within the source.
        dataset: value of `dataset` in closed-ended rows.
        split: train, val or test of the result; the source's own test clips are not read.
        recordings: what it is cut from and who speaks, by names that data sets share, such as
            youtube:ID, freesound:NUMBER, speaker:NAME; `leakage` looks for test clips by them.
        files: stems that the audio file may have, the published one first; folders before a stem
            must be there too.
        start, end: seconds of the clip within the file of its last stem; the first one is then
            that of a file of its own. None where every file is one.
        audio: path of its audio file; "" where no folder of audio was given.
        where: file and line of the metadata.
        licence: of the audio and labels.
        labels: classes, most specific ones only where the source tells.
        events: every occurrence of every class; None where the source does not time them.
        captions: sentences by people, or by a language model from people's descriptions.
        gold_text: what is said, by a person; "" where only Whisper can tell.
        gender: female or male; "" unknown.
        age: whole years; None unknown.
        emotion: "" unknown.
        score: of the sentiment, -3 to 3; None unknown.
        negative: whether the sentiment is below 0; None unknown.
        genres: of music.
        title: of a track or upload.
        tags: of an upload.
        window_kind: of a window of real recordings, whose labels name everything that is heard; ""
            of other clips.
        absent: classes that are asked about and not heard.
        f0_hz, speech_seconds: of the voice alone, where sounds were added to it; see `SpokenClip`.
    """

    source: str
    clip_id: str
    dataset: str
    split: str = "train"
    recordings: tuple[str, ...] = ()
    files: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    audio: str = ""
    where: str
    licence: str
    labels: tuple[str, ...] = ()
    events: tuple[SoundEvent, ...] | None = None
    captions: tuple[str, ...] = ()
    gold_text: str = ""
    gender: str = ""
    age: int | None = None
    emotion: str = ""
    score: int | None = None
    negative: bool | None = None
    genres: tuple[str, ...] = ()
    title: str = ""
    tags: tuple[str, ...] = ()
    window_kind: str = ""
    absent: tuple[str, ...] = ()
    f0_hz: float | None = None
    speech_seconds: float | None = None

    @property
    def speechless(self) -> bool:
        """Whether it is known that nobody speaks, so that a text of Whisper's is invented."""
        return bool(self.window_kind) and SPEECH not in self.labels

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the fields that say something."""
        record = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "events" and value is not None:
                value = [[event.start, event.end, event.label] for event in value]
            elif value in ((), "", None):
                continue
            record[name] = list(value) if isinstance(value, tuple) else value
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "SourceClip":
        """Return the clip of such an object."""
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        if "events" in values:
            values["events"] = tuple(
                SoundEvent(start=start, end=end, label=label)
                for start, end, label in record["events"]
            )
        return cls(**values)


_FIELDS = tuple(field.name for field in dataclasses.fields(SourceClip))
