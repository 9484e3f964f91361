"""Open-ended questions about a clip: descriptions and inferences by template, several wordings."""

import zlib

from data_pipelines.mini.clip_facts import Facts
from data_pipelines.mini.closed_questions import fill
from data_pipelines.records.schema import QAPair

_DESCRIBE = (
    "Describe the audio clip.",
    "What can be heard in this recording?",
    "Give a short description of the audio.",
)
_INFER = ("What can be inferred from the audio?", "What may be happening here?")
_SOUND = (
    "There is {sound} in the recording.",
    "One can hear {sound}.",
    "The recording has the sound of {sound}.",
)
_ANIMAL = ("An animal can be heard.", "The recording is of an animal.")
_MUSIC = ("A piece of music: {music}.", "One can hear {music} music.", "{Music} music is playing.")
_SPEECH = ("A {gender} voice says: {text}", "Someone speaks, a {gender} voice: {text}")
_JOINT = (
    "One can hear {sound} while a {gender} voice says: {text}",
    "With {sound} in the background, a {gender} voice says: {text}",
)
_SPEECH_WITHOUT_TEXT = ("A {gender} voice is speaking.",)
_JOINT_WITHOUT_TEXT = ("One can hear {sound} while a {gender} voice speaks.",)
# What a listener may conclude from a class, in a few words.
SCENES = {
    "dog barking": "The dog barking may mean that somebody comes to the door.",
    "cat meowing": "The cat meowing may want food or attention.",
    "cow mooing": "The cow mooing suggests a farm or a pasture.",
    "rooster crowing": "The rooster crowing suggests early morning on a farm.",
    "frog croaking": "The frog croaking suggests a pond nearby.",
    "owl hooting": "The owl hooting suggests a forest at night.",
    "bird chirping": "The bird chirping suggests a garden or a forest by day.",
    "telephone ringing": "The telephone ringing means that somebody is calling.",
    "helicopter": "The helicopter suggests that one flies over the place.",
    "applause": "The applause suggests that a performance has ended.",
    "gunshots": "The gunshots suggest danger or a shooting range.",
    "sea waves": "The sea waves suggest a beach.",
    "siren": "The siren suggests an emergency in a street.",
    "clock ticking": "The clock ticking suggests a quiet room.",
    "church bell": "The church bell suggests a church nearby.",
    "car horn": "The car horn suggests traffic in a street.",
    "solo piano": "The solo piano suggests practice or a recital.",
    "string orchestra": "The string orchestra suggests a concert hall.",
    "rock band": "The rock band suggests a rock concert.",
    "jazz trio": "The jazz trio suggests a jazz club.",
    "electronic dance": "The electronic dance music suggests a night club.",
    "church organ": "The church organ suggests a church service.",
}


def open_pairs(facts: Facts) -> tuple[QAPair, ...]:
    """Write two descriptions and, where a scene follows from what is heard, one inference."""
    if facts.kind == "joint":
        answers = _JOINT if facts.spoken_text else _JOINT_WITHOUT_TEXT
    elif facts.gender:
        answers = _SPEECH if facts.spoken_text else _SPEECH_WITHOUT_TEXT
    elif facts.music:
        answers = _MUSIC
    else:
        answers = _SOUND if facts.sound else _ANIMAL
    offset = zlib.crc32(
        facts.clip_id.encode()
    )  # wordings differ from clip to clip, not from run to run
    pairs = []
    for index in range(2):
        question = _DESCRIBE[(offset + index) % len(_DESCRIBE)]
        answer = answers[(offset // 7 + index) % len(answers)]
        pairs.append(_pair("open_describe", index, question, fill(answer, facts)))
    scene = SCENES.get(facts.sound or facts.music)
    if scene:
        pairs.append(_pair("open_infer", 0, _INFER[offset % len(_INFER)], scene))
    return tuple(pairs)


def _pair(task: str, index: int, question: str, answer: str) -> QAPair:
    return QAPair(
        pair_id=f"{task}-{index}",
        instruction=question,
        output=answer,
        task=task,
        closed_ended=False,
    )
