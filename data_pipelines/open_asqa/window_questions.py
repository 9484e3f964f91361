"""Questions about a window of real recordings, of which everything that is heard is known.

    A dog and rain are heard. A woman speaks.      Yes, a dog is heard. / No, a cat is not heard.
    Background sound: Dog; Rain.                   Background sound: Dog; Rain. Spoken text: TEXT
    Instruments: Guitar; Piano.                    Number of sounds: 2.

What is there and what is not are asked about as often, in the same words. In silence and noise
nothing is heard, and of a window in which nobody speaks it is asked who does and what is said.
"""

from collections.abc import Iterator, Sequence

from data_pipelines.metadata.class_phrases import kin, phrases
from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.open_asqa.temporal import Question
from data_pipelines.real.recording_table import MUSIC, SPEECH
from data_pipelines.real.window_manifest import NOISE, SILENCE

TASKS = (
    "cla_heard", "cla_presence", "cla_background", "ASR_background", "instrument_cla", "count_cla",
    "nobody_cla",
)  # fmt: skip
# Label of a window in which no event is heard.
EMPTY = {SILENCE: "Silence", NOISE: "Noise"}
NOBODY = "Nobody speaks."
NONE = "none"
INSTRUMENTS = (
    "Guitar", "Piano", "Organ", "Bowed string instrument", "Flute", "Saxophone",
    "Brass instrument", "Mallet percussion", "Accordion", "Drum kit",
)  # fmt: skip
_MOST_ASKED = 2  # classes whose presence is affirmed, and that is denied
_SPEECH_ASKED = 1 / 3  # share of the windows that are asked whether somebody speaks
_DENIED = 1 / 6  # share of those without instruments, or without speech, that are asked about them
_QUOTED = "temporal_presence"  # wordings with the class in quotes, beside those of a conversation


def sounds_of(clip: SourceClip) -> list[str]:
    """Return the classes that are heard in a window, without speech; [] of silence and noise."""
    return [label for label in clip.labels if label != SPEECH and label not in EMPTY.values()]


def questions(clip: SourceClip, *, spoken_text: str, names: Sequence[str]) -> Iterator[Question]:
    """Yield the questions about a window.

    Args:
        clip: a window.
        spoken_text: what is asked for as spoken text; "" for no such question.
        names: by which classes are drawn: seed and clip.
    """

    def plain(task: str, answer: str, wording: str = "") -> Question:
        return Question(task=task, wording=wording or task, answer=answer)

    sounds, speech = sounds_of(clip), SPEECH in clip.labels
    yield plain("cla_heard", _heard(clip, sounds))
    yield from _presence(clip, sounds, names)
    yield plain("count_cla", f"Number of sounds: {len(sounds)}.")
    instruments = [name for name in sounds if name in INSTRUMENTS]
    if instruments:
        yield plain("instrument_cla", f"Instruments: {'; '.join(instruments)}.")
    elif MUSIC not in sounds and draw.fraction(*names, "instrument_cla", "asked") < _DENIED:
        yield plain("instrument_cla", f"Instruments: {NONE}.")
    if speech:
        behind = "; ".join(label for label in clip.labels if label != SPEECH)
        yield plain("cla_background", f"Background sound: {behind or NONE}.")
        if spoken_text and behind:
            both = f"Background sound: {behind}. Spoken text: {spoken_text}"
            yield plain("ASR_background", both)
    elif draw.fraction(*names, "nobody_cla", "asked") < _DENIED:
        wording = draw.choose(("ASR", "gender_cla"), *names, "nobody_cla", "wording")
        yield plain("nobody_cla", NOBODY, wording)


def _heard(clip: SourceClip, sounds: Sequence[str]) -> str:
    speaker = {"female": "A woman speaks", "male": "A man speaks"}.get(clip.gender, "")
    if not speaker and SPEECH in clip.labels:
        speaker = "Somebody speaks"
    if sounds:
        named = [phrases()[name] for name in sounds]
        first = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
        verb = "are" if len(named) > 1 else "is"
        sentence = f"{first[0].upper()}{first[1:]} {verb} heard."
        return f"{sentence} {speaker}." if speaker else sentence
    noise = EMPTY[NOISE] in clip.labels
    if speaker:
        return f"{speaker} over noise." if noise else f"{speaker}, and nothing else is heard."
    return "Only noise is heard." if noise else "Nothing is heard."


def _presence(clip: SourceClip, sounds: Sequence[str], names: Sequence[str]) -> Iterator[Question]:
    absent = [name for name in clip.absent if not any({name, sound} in kin() for sound in sounds)]
    count = min(_MOST_ASKED, len(absent), len(sounds) if sounds else _MOST_ASKED)
    asked = [(name, True) for name in sounds[:count]]
    asked += [(name, False) for name in absent[:count]]
    if draw.fraction(*names, "cla_presence", SPEECH) < _SPEECH_ASKED:
        asked.append((SPEECH, SPEECH in clip.labels))
    for name, there in asked:
        quoted = draw.fraction(*names, "cla_presence", name) < 0.5
        event = name if quoted else phrases()[name]
        yield Question(
            task="cla_presence",
            wording=_QUOTED if quoted else "cla_presence",
            values={"event": event},
            answer=f"Yes, {event} is heard." if there else f"No, {event} is not heard.",
        )
