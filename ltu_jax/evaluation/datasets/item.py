"""The parts of every benchmark: clips, items that ask about them, tasks and input modes."""

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path

HEARD = "heard"


class Task(enum.StrEnum):
    """The kind of answer that a question asks for, which decides how it is scored.

    classification: one of `choices`, in a free sentence. Reference: the label.
    multilabel: any of `choices`. References: all labels of the clip.
    caption: a description of the sound. References: all human captions.
    spoken_text: what is said. Reference: the transcript.
    gender: of the speaker. Reference: "female" or "male".
    age: of the speaker. Reference: years, in digits.
    choice: one of the listed options, multiple choice. Reference: the option's text.
    open: anything. Reference: the answer that the data gives.
    class_and_words: one of `choices`, and what is said, in one answer. Reference: the label.
    """

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    CAPTION = "caption"
    SPOKEN_TEXT = "spoken_text"
    GENDER = "gender"
    AGE = "age"
    CHOICE = "choice"
    OPEN = "open"
    CLASS_AND_WORDS = "class_and_words"


class EvaluationMode(enum.StrEnum):
    """The inputs that the model is given of a clip.

    joint: the audio, and Whisper's transcript in the Input block.
    audio: the audio, with an empty Input block.
    text: the transcript alone; no audio tokens at all.
    shuffled: the audio of another clip of the same row (of another class wherever possible), with
        the item's own transcript. What is still answered right was not heard.
    silence: digital silence as long as the clip (to 0.1 s), with the item's own transcript.
    """

    JOINT = "joint"
    AUDIO = "audio"
    TEXT = "text"
    SHUFFLED = "shuffled"
    SILENCE = "silence"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioClip:
    """A recording that is asked about.

    Attributes:
        clip_id: unique in its benchmark.
        audio: its file.
        cluster: what intervals resample as one: the speaker, song or recording it was cut from
            where the data says so, else the clip itself.
        start, end: the part of the file that is the clip, in seconds; `end` None is to its end.
        spoken_text: the transcript that the data comes with; None lets Whisper write one.
    """

    clip_id: str
    audio: Path
    cluster: str
    start: float = 0.0
    end: float | None = None
    spoken_text: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A question about a clip, and what is right.

    Attributes:
        item_id: unique in its benchmark.
        clip_id: the clip it asks about.
        row: line of the results table that it counts in.
        question: the instruction of the prompt; "" takes that of the row.
        references: what is right, as `Task` says; at least one.
        choices: the classes or options it may be.
        groups: how results are broken down: {"fold": "3"}, {"category": "Sound", ...}. The value of
            `HEARD`, where it is given, is what the clip is of: the shuffled mode hears another.
    """

    item_id: str
    clip_id: str
    row: str
    references: tuple[str, ...]
    question: str = ""
    choices: tuple[str, ...] = ()
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The first reference: the class, where there is one."""
        return self.references[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The items of a split and the clips they ask about, as a reader returns them."""

    items: tuple[Item, ...]
    clips: Mapping[str, AudioClip]
