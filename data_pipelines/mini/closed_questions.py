"""Closed-ended questions about a clip, several wordings each, some of them the official prompts.

Answers are short and contain the class name as written in `audio.sounds` and `audio.music`, or
end in ``spoken text: <transcript>`` (the marker that the official speech recognition score splits
at).
"""

from data_pipelines.mini.clip_facts import STYLE_AXES, Facts
from data_pipelines.records.schema import QAPair

FORMAT = 2  # of the pairs of a corpus: tasks and wordings

# (question, answer) wordings; the answer may use {sound}, {music}, {group}, {gender}, {text},
# {value}.
SOUND = (
    ("Close-ended question: Write an audio caption describing the sound.", "The sound of {sound}."),
    ("Classify the sound in this audio clip.", "The sound of {sound}."),
    ("What sound do you hear?", "{Sound}."),
    ("Which sound event happens in the recording?", "{Sound}."),
    ("Name the sound in the clip.", "{Sound}."),
)
GROUP = (
    (
        "What kind of source makes the sound: an animal, a device, a vehicle, people or nature?",
        "{Group}.",
    ),
    ("Does the sound come from an animal, a device, a vehicle, people or nature?", "{Group}."),
)
BACKGROUND = (
    ("What is the background sound behind the speech?", "{Sound}."),
    ("Besides the speech, what sound can be heard?", "{Sound}."),
    ("Classify the background sound.", "The sound of {sound}."),
    ("Which sound event happens while the person is speaking?", "{Sound}."),
    (
        "Close-ended question: Name the sound heard together with the voice.",
        "The sound of {sound}.",
    ),
)
MUSIC = (
    ("Describe the music genre with a sentence?", "The music is {music}."),
    ("What kind of music is this?", "{Music}."),
    ("Classify the music.", "{Music}."),
    ("Which ensemble or style of music is playing?", "The music is {music}."),
    ("Name the type of music in the clip.", "{Music}."),
)
SPOKEN_TEXT = (
    ("Closed-ended question: Can you identify the spoken text?", "Spoken text: {text}"),
    ("What does the speaker say?", "Spoken text: {text}"),
    ("Transcribe the speech.", "Spoken text: {text}"),
)
GENDER = (
    ("Is the speaker male or female? Output an answer anyways.", "{Gender}."),
    ("What is the gender of the speaker?", "The speaker is {gender}."),
    ("Is it a man or a woman speaking? Answer male or female.", "{Gender}."),
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
STYLE = {
    "pitch": (
        ("Is the pitch of the voice low or high?", "{Value} pitch."),
        ("Classify the pitch of the speaker: low or high.", "{Value} pitch."),
    ),
    "speed": (
        ("Does the speaker talk slowly or fast? Answer slow or fast.", "{Value} speed."),
        ("Classify the speaking speed: slow or fast.", "{Value} speed."),
    ),
    "volume": (
        ("Is the voice quiet or loud?", "{Value} volume."),
        ("Classify the speaking volume: quiet or loud.", "{Value} volume."),
    ),
}
ALL_STYLE = (
    (
        "Describe the speaking style: pitch, speed and volume.",
        "{pitch} pitch, {speed} speed, {volume} volume.",
    ),
)
# Tasks have the names of Open-ASQA where it has them; those that are classification are picked by
# `mixtures.TASKS`.
STYLE_TASKS = {"pitch": "pitch_cla", "speed": "speed_cla", "volume": "energy_cla"}
GROUP_NAMES = {
    "animal": "an animal",
    "device": "a device",
    "vehicle": "a vehicle",
    "people": "people",
    "nature": "nature",
}


def fill(template: str, facts: Facts, **more: str) -> str:
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
        **more,
    }
    values |= {name.capitalize(): value[:1].upper() + value[1:] for name, value in values.items()}
    return template.format(**values)


def closed_pairs(facts: Facts) -> tuple[QAPair, ...]:
    """Write all closed-ended pairs that the facts of a clip allow."""
    pairs: list[QAPair] = []

    def ask(task: str, wordings: tuple[tuple[str, str], ...], **more: str) -> None:
        for index, (question, answer) in enumerate(wordings):
            pairs.append(
                QAPair(
                    pair_id=f"{task}-{index}",
                    instruction=question,
                    output=fill(answer, facts, **more),
                    task=task,
                    closed_ended=True,
                )
            )

    over_speech = facts.kind == "joint"
    if facts.sound and over_speech:
        ask("cla_background", BACKGROUND)
    elif facts.sound:
        ask("cla_label", SOUND)
    if facts.group and not over_speech:
        ask("cla_group", GROUP)
    if facts.music:
        ask("genre_cla", MUSIC)
    if facts.spoken_text and facts.gender:
        ask("ASR", SPOKEN_TEXT[:1] if over_speech else SPOKEN_TEXT)
        if over_speech:
            ask("ASR_background", BOTH)
    if facts.gender:
        ask("gender_cla", GENDER[:1] if over_speech else GENDER)
    for axis in STYLE_AXES:
        if not over_speech and axis in facts.style:
            ask(STYLE_TASKS[axis], STYLE[axis], value=facts.style[axis])
    if not over_speech and len(facts.style) == len(STYLE_AXES):
        ask("cla_style", ALL_STYLE)
    return tuple(pairs)
