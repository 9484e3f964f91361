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

    def ask(row, task, wordings, *, label="", choices=(), texts=False, **more):
        pick = zlib.crc32(f"{facts.clip_id}/{task}".encode()) % len(wordings)
        question, answer = wordings[pick]
        item = {
            "item_id": f"{facts.clip_id}/{row}/{task}",
            "clip_id": facts.clip_id,
            "split": split,
            "row": row,
            "task": task,
            "question": question,
            "answer": closed_questions.fill(answer, facts, **more),
            "label": label,
            "choices": list(choices),
        }
        if texts:
            item |= {"truth_text": truth_text, "whisper_text": facts.spoken_text}
        items.append(item)

    def style(row):
        for axis, (below, above) in STYLE_AXES.items():
            if axis in facts.style:
                value = facts.style[axis]
                ask(
                    row,
                    axis,
                    closed_questions.STYLE[axis],
                    label=value,
                    choices=(below, above),
                    value=value,
                )

    def gender(row):
        ask(row, "gender", closed_questions.GENDER, label=facts.gender, choices=_GENDERS)

    if facts.kind == "sound":
        ask("sound", "sound", closed_questions.SOUND, label=facts.sound, choices=SOUNDS)
    elif facts.kind == "real_sound" and facts.sound:
        ask("real_sound", "sound", closed_questions.SOUND, label=facts.sound, choices=SOUNDS)
    elif facts.kind == "music":
        ask("music", "music", closed_questions.MUSIC, label=facts.music, choices=MUSIC)
    elif facts.kind == "unseen_voice":
        gender("unseen_voice")
        style("unseen_voice")
    elif facts.kind == "speech":
        gender("gender")
        style("style")
        if facts.spoken_text:
            ask("spoken_text", "spoken_text", closed_questions.SPOKEN_TEXT, texts=True)
    elif facts.kind == "joint":
        ask(
            "background",
            "background",
            closed_questions.BACKGROUND,
            label=facts.sound,
            choices=SOUNDS,
        )
        if facts.spoken_text:
            ask(
                "joint_questions",
                "both",
                closed_questions.BOTH,
                label=facts.sound,
                choices=SOUNDS,
                texts=True,
            )
    return items
