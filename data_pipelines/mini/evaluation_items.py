"""Evaluation items: questions whose answers need hearing, with the labels to score them by.

Rows: sound, background, music, spoken_text, gender, style, joint_questions, unseen_voice,
real_sound. The wordings are those of training; which one a clip gets is fixed by its id. No item
can be answered from the empty Input block: every row asks clips of one kind only, so an empty or a
filled Input says nothing about the label.
"""

import zlib
from typing import Any

from data_pipelines.mini import closed_questions
from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.mini.clip_facts import STYLE_AXES, Facts
from data_pipelines.open_asqa.closed_ended import STYLE_TASKS

ROWS = (
    "sound",
    "background",
    "music",
    "spoken_text",
    "gender",
    "style",
    "joint_questions",
    "unseen_voice",
    "real_sound",
)
_GENDERS = ("male", "female")


def test_items(facts: Facts, *, split: str, truth_text: str) -> list[dict[str, Any]]:
    """Make the evaluation items of one clip: ``{item_id, clip_id, split, row, task, question,
    answer, label, choices}``, for spoken text also ``truth_text`` (the script) and ``whisper_text``
    (the Input block).
    """
    items: list[dict[str, Any]] = []
    asked = closed_questions.questions(facts)

    def ask(row, name, task, *, label="", choices=(), texts=False):
        pick = zlib.crc32(f"{facts.clip_id}/{name}".encode()) % len(asked[task])
        question, answer = asked[task][pick]
        item = {
            "item_id": f"{facts.clip_id}/{row}/{name}",
            "clip_id": facts.clip_id,
            "split": split,
            "row": row,
            "task": name,
            "question": question,
            "answer": answer,
            "label": label,
            "choices": list(choices),
        }
        if texts:
            item |= {"truth_text": truth_text, "whisper_text": facts.spoken_text}
        items.append(item)

    def style(row):
        for axis, (below, above) in STYLE_AXES.items():
            if axis in facts.style:
                ask(row, axis, STYLE_TASKS[axis], label=facts.style[axis], choices=(below, above))

    def gender(row):
        ask(row, "gender", "gender_cla", label=facts.gender, choices=_GENDERS)

    if facts.kind == "sound":
        ask("sound", "sound", "cla_label", label=facts.sound, choices=SOUNDS)
    elif facts.kind == "real_sound" and facts.sound:
        ask("real_sound", "sound", "cla_label", label=facts.sound, choices=SOUNDS)
    elif facts.kind == "music":
        ask("music", "music", "genre_cla", label=facts.music, choices=MUSIC)
    elif facts.kind == "unseen_voice":
        gender("unseen_voice")
        style("unseen_voice")
    elif facts.kind == "speech":
        gender("gender")
        style("style")
        if facts.spoken_text:
            ask("spoken_text", "spoken_text", "ASR", texts=True)
    elif facts.kind == "joint":
        sound = {"label": facts.sound, "choices": SOUNDS}
        ask("background", "background", "cla_background", **sound)
        if facts.spoken_text:
            ask("joint_questions", "both", "ASR_background", texts=True, **sound)
    return items
