"""Closed-ended questions about a clip: by the writer and the wordings of Open-ASQA, several draws.

What the mini corpus alone knows it asks itself: what kind of source makes a sound, which sound is
behind a voice, both with the spoken text, and all of the style at once. The answers hold the class
name as written in `audio.sounds` and `audio.music`, or end in ``Spoken text: <transcript>`` (the
marker that the official speech recognition score splits at).
"""

from collections.abc import Mapping

from data_pipelines.mini.clip_facts import STYLE_AXES, Facts
from data_pipelines.open_asqa import closed_ended
from data_pipelines.open_asqa.closed_ended import STYLE_TASKS, ClipFindings
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.records.schema import QAPair

FORMAT = 4  # of the pairs of a corpus: tasks, wordings, open-ended replies

# Task -> how many wordings a clip is asked in; fewer where sound and speech are mixed.
DRAWS: Mapping[str, int] = {
    "cla_label": 5, "genre_cla": 5, "ASR": 3, "gender_cla": 3, "pitch_cla": 2, "speed_cla": 2,
    "energy_cla": 2,
}  # fmt: skip
JOINT_DRAWS: Mapping[str, int] = {"ASR": 1, "gender_cla": 1}

# (question, answer) wordings; the answer may use {sound}, {group}, {text} and axes of the style.
GROUP = (
    (
        "What kind of source makes the sound: an animal, a device, a vehicle, people or nature?",
        "{Group}.",
    ),
    ("Does the sound come from an animal, a device, a vehicle, people or nature?", "{Group}."),
)
BACKGROUND = (
    ("What is the background sound behind the speech?", "Labels: {sound}"),
    ("Besides the speech, what sound can be heard?", "Labels: {sound}"),
    ("Classify the background sound.", "Labels: {sound}"),
    ("Which sound event happens while the person is speaking?", "Labels: {sound}"),
    ("Closed-ended question: Name the sound heard together with the voice.", "Labels: {sound}"),
)
BOTH = (
    (
        "What is the background sound, and what does the speaker say?",
        "Background sound: {sound}. Spoken text: {text}",
    ),
    (
        "Name the sound behind the voice and write down the spoken text.",
        "Background sound: {sound}. Spoken text: {text}",
    ),
    (
        "Closed-ended question: Identify both the background sound and the spoken text.",
        "Background sound: {sound}. Spoken text: {text}",
    ),
)
ALL_STYLE = (
    (
        "Describe the speaking style: pitch, speed and volume.",
        "{pitch} pitch, {speed} speed, {volume} volume.",
    ),
)
GROUP_NAMES = {
    "animal": "an animal",
    "device": "a device",
    "vehicle": "a vehicle",
    "people": "people",
    "nature": "nature",
}


def fill(template: str, facts: Facts) -> str:
    """Put the clip's facts into a wording; a capitalised name, such as {Sound}, gives a capitalised
    value.
    """
    values = {
        "sound": facts.sound,
        "music": facts.music,
        "gender": facts.gender,
        "group": GROUP_NAMES.get(facts.group, ""),
        "text": facts.spoken_text,
        **facts.style,
    }
    values |= {name.capitalize(): value[:1].upper() + value[1:] for name, value in values.items()}
    return template.format(**values)


def closed_pairs(facts: Facts) -> tuple[QAPair, ...]:
    """Write all closed-ended pairs that the facts of a clip allow."""
    return tuple(
        QAPair(
            pair_id=f"{task}-{number}",
            instruction=question,
            output=answer,
            task=task,
            closed_ended=True,
        )
        for task, pairs in questions(facts).items()
        for number, (question, answer) in enumerate(pairs)
    )


def questions(facts: Facts) -> dict[str, list[tuple[str, str]]]:
    """Return task -> (question, answer) of each wording, no question twice."""
    over_speech = facts.kind == "joint"
    found: dict[str, list[tuple[str, str]]] = {}

    def ask(task: str, question: str, answer: str) -> None:
        pairs = found.setdefault(task, [])
        if question not in (asked for asked, _ in pairs):
            pairs.append((question, answer))

    for task, draws in (JOINT_DRAWS if over_speech else DRAWS).items():
        for number in range(draws):
            for pair in closed_ended.closed_pairs(
                _as_clip(facts), _findings(facts), tasks=(task,), seed=f"mini/{number}"
            ):
                ask(task, pair.question, pair.answer)
    own = {
        "cla_background": BACKGROUND if over_speech and facts.sound else (),
        "cla_group": GROUP if facts.group and not over_speech else (),
        "ASR_background": BOTH if over_speech and facts.spoken_text and facts.gender else (),
        "cla_style": ALL_STYLE if not over_speech and len(facts.style) == len(STYLE_AXES) else (),
    }
    for task, wordings in own.items():
        for question, answer in wordings:
            ask(task, question, fill(answer, facts))
    return found


def _as_clip(facts: Facts) -> SourceClip:
    return SourceClip(
        source="mini",
        clip_id=facts.clip_id,
        dataset=f"mini_{facts.kind}",
        files=(facts.clip_id,),
        where="",
        licence="",
        labels=(facts.sound,) if facts.sound else (),
        gender=facts.gender,
        genres=(facts.music,) if facts.music else (),
    )


def _findings(facts: Facts) -> ClipFindings:
    style = {axis: facts.style[axis] for axis in STYLE_TASKS if axis in facts.style}
    return ClipFindings(spoken_text=facts.spoken_text if facts.gender else "", style=style)
