"""What a language model is told of a clip: the facts that a prompt declares, as JSON.

JSON, so that no text of a clip can end its own field and speak for another.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.class_descriptions import class_descriptions
from data_pipelines.open_asqa.closed_ended import SCORE_WORDS
from data_pipelines.open_asqa.source_clip import SourceClip

SINGING = "Singing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownClip:
    """A clip with what later steps found.

    Attributes:
        clip: what its source says.
        spoken_text: by Whisper; "" for none.
        style: its line of style.jsonl; {} for none.
        implied: what the first of two calls made of words and sounds; "" where there was none.
    """

    clip: SourceClip
    spoken_text: str = ""
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    implied: str = ""


class MissingFieldError(Exception):
    """A clip that lacks a field that its prompt needs; the text is the field's name."""


def _sounds(known: KnownClip) -> Any:
    return [_sound(known.clip, label) for label in known.clip.labels]


def _sound(clip: SourceClip, label: str) -> dict[str, Any]:
    options = class_descriptions().get(label)
    names = (clip.source, clip.clip_id, label, "prompt")
    return {"sound": label} | ({"acoustics": draw.choose(options, *names)} if options else {})


def _events(known: KnownClip) -> Any:
    events = sorted(known.clip.events or ())
    heard: dict[str, list[str]] = {}
    for event in events:
        heard.setdefault(event.label, []).append(f"{event.start:.1f}-{event.end:.1f}")
    return [
        _sound(known.clip, label) | {"seconds": ", ".join(times)} for label, times in heard.items()
    ]


def _captions(known: KnownClip) -> Any:
    return list(known.clip.captions)


def _background(known: KnownClip) -> Any:
    return [label for label in known.clip.labels if label != SINGING]


def _spoken_text(known: KnownClip) -> Any:
    return known.clip.gold_text or ("" if known.clip.speechless else known.spoken_text)


def _heard_text(known: KnownClip) -> Any:
    return "" if SINGING in known.clip.labels else known.spoken_text


def _sung_text(known: KnownClip) -> Any:
    return known.spoken_text if SINGING in known.clip.labels else ""


def _gender(known: KnownClip) -> Any:
    return known.clip.gender or known.style.get("gender", "")


def _pitch(known: KnownClip) -> Any:
    style = known.style
    pitch = {
        "hertz": style.get("f0_hz") and round(style["f0_hz"]),
        "among all people": style.get("pitch_among_all"),
        "among people of the gender": style.get("pitch") if style.get("pitch_hz") else None,
    }
    return {name: value for name, value in pitch.items() if value}


def _sentiment(known: KnownClip) -> Any:
    score = known.clip.score
    return {} if score is None else {"score": score, "in words": SCORE_WORDS[score]}


# Field that a prompt may declare -> its name in the JSON, and what a clip has there; what is empty
# is missing.
FIELDS: Mapping[str, tuple[str, Callable[[KnownClip], Any]]] = {
    "labels": ("sounds", _sounds),
    "events": ("sounds", _events),
    "captions": ("descriptions", _captions),
    "background": ("sounds", _background),
    "spoken_text": ("spoken text", _spoken_text),
    "heard_text": ("spoken text", _heard_text),
    "sung_text": ("sung text", _sung_text),
    "lyrics": ("lyrics", lambda known: known.spoken_text),
    "gender": ("gender of the speaker", _gender),
    "age": ("age of the speaker", lambda known: known.clip.age),
    "pitch": ("pitch of the voice", _pitch),
    "speed": ("speed of the speech", lambda known: known.style.get("speed")),
    "volume": ("volume of the voice", lambda known: known.style.get("volume")),
    "emotion": ("emotion of the speaker", lambda known: known.clip.emotion),
    "sentiment": ("sentiment from -3 to 3", _sentiment),
    "genres": ("genres", lambda known: list(known.clip.genres)),
    "title": ("title", lambda known: known.clip.title),
    "implied": ("what it suggests", lambda known: known.implied),
    "tags": ("tags", lambda known: list(known.clip.tags)),
}


def material(
    known: KnownClip, *, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, Any]:
    """Return the fields that a clip has, in the order in which they are declared.

    Args:
        known: the clip.
        required: fields that it must have; "a|b" for one of the two.
        optional: fields that it may lack.

    Raises:
        MissingFieldError: it lacks a required one.
    """
    found: dict[str, Any] = {}
    for declared in (*required, *optional):
        names = declared.split("|")
        values = {FIELDS[name][0]: FIELDS[name][1](known) for name in names}
        values = {name: value for name, value in values.items() if value or value == 0}
        if not values and declared in required:
            raise MissingFieldError(declared)
        found |= values
    return found
