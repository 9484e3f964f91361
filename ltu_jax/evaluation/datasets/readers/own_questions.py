"""The user's own benchmark: a JSON Lines file, one question a line.

    {"audio": "clips/dog.wav", "question": "What do you hear?", "answer": "dog",
     "task": "classification", "labels": ["dog", "cat"]}

audio: a file; relative to the folder of the JSONL. question: what the model is asked, in full; the
options of a multiple-choice question are not added to it. answer: text; for caption and multilabel
also a list of texts; for age also a number. task: a value of `Task`. labels: the classes or options
there are, for classification, multilabel, choice and class_and_words. Optional are id, cluster
(speaker, song or recording: clips that belong together), spoken_text (without it Whisper writes
one), start and end in seconds, and groups ({"noise": "high"}: how results are broken down).
"""

import sys
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import check_split, field, json_lines
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import inside
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item, Task
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems, text

SPLITS = ("all",)

_EXPECTED = "a JSON Lines file of your own questions"
_KEYS = ("audio", "question", "answer", "task")
_OPTIONAL = ("labels", "id", "cluster", "spoken_text", "start", "end", "groups")
_LABELLED = (Task.CLASSIFICATION, Task.MULTILABEL, Task.CHOICE, Task.CLASS_AND_WORDS)
_SEVERAL = (Task.MULTILABEL, Task.CAPTION)
_GENDERS = ("female", "male")


def read(data: Path, *, split: str) -> Corpus:
    """Read every line of the file, in order; the row of an item is its task.

    An item's id is its `id`, or "line N". Lines about the same audio, start and end ask about one
    clip, whose cluster is `cluster` or else the file.

    Raises:
        UserError: unknown split; no file; a line that is not a JSON object, has an unknown key,
            lacks one, or has a value that its task cannot be scored by; an id used twice; two lines
            that give one clip different transcripts or clusters.
    """
    check_split(split, SPLITS, dataset="your own JSONL")
    collected = CollectedItems()
    for where, record in json_lines(data, expected=_EXPECTED, problems=collected):
        with collected.record():
            unknown = [key for key in record if key not in (*_KEYS, *_OPTIONAL)]
            if unknown:
                raise UserError(
                    f"{where}: unknown key {unknown[0]!r}; known: {', '.join((*_KEYS, *_OPTIONAL))}"
                )
            task = _task(record, where)
            labels = _labels(record, task, where)
            clip = _clip(record, data.parent, where)
            line = where.rpartition(":")[2]
            item = Item(
                item_id=text(record, "id", where) if "id" in record else f"line {line}",
                clip_id=clip.clip_id,
                row=task.value,
                question=text(record, "question", where),
                references=_answers(record, task, labels, where),
                choices=labels,
                groups=_groups(record, where),
            )
            collected.add(item, clip, where=where)
    return collected.corpus(data, split=split)


def _task(record: dict[str, Any], where: str) -> Task:
    name = text(record, "task", where)
    if name not in list(Task):
        raise UserError(f"{where}: task is {name!r}: use one of {', '.join(Task)}")
    return Task(name)


def _labels(record: dict[str, Any], task: Task, where: str) -> tuple[str, ...]:
    if task not in _LABELLED:
        if "labels" in record:
            raise UserError(f"{where}: task {task.value!r} has no labels: leave the key out")
        return _GENDERS if task is Task.GENDER else ()
    labels = _texts(record, "labels", where)
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise UserError(f"{where}: labels are {list(labels)}: give two or more, each once")
    return labels


def _answers(
    record: dict[str, Any], task: Task, labels: tuple[str, ...], where: str
) -> tuple[str, ...]:
    value = record.get("answer")
    if isinstance(value, list) and task in _SEVERAL:
        answers = _texts(record, "answer", where)
    elif task is Task.AGE and isinstance(value, int) and not isinstance(value, bool):
        answers = (str(value),)
    else:
        answers = (text(record, "answer", where),)
    if task is Task.AGE and not answers[0].isdecimal():
        raise UserError(f"{where}: answer is {answers[0]!r}: give the age as a whole number")
    strange = [answer for answer in answers if labels and answer not in labels]
    if strange:
        raise UserError(f"{where}: answer {strange[0]!r} is none of {', '.join(map(repr, labels))}")
    return answers


def _clip(record: dict[str, Any], folder: Path, where: str) -> AudioClip:
    audio = text(record, "audio", where)
    start = _seconds(record, "start", where) or 0.0
    end = _seconds(record, "end", where)
    if end is not None and end <= start:
        raise UserError(f"{where}: start is {start} s, end is {end} s: nothing lies between")
    part = f" from {start} s to {'its end' if end is None else f'{end} s'}"
    return AudioClip(
        clip_id=audio if start == 0 and end is None else f"{audio}{part}",
        audio=inside(folder, audio, where=where, owned=True),
        cluster=text(record, "cluster", where) if "cluster" in record else audio,
        start=start,
        end=end,
        spoken_text=field(record, "spoken_text", where) if "spoken_text" in record else None,
    )


def _seconds(record: dict[str, Any], name: str, where: str) -> float | None:
    if name not in record:
        return None
    value = record[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= sys.float_info.max:
        raise UserError(f"{where}: {name} is {value!r}: give seconds, 0 or more")
    return float(value)


def _groups(record: dict[str, Any], where: str) -> dict[str, str]:
    groups = record.get("groups", {})
    if not isinstance(groups, dict):
        raise UserError(f'{where}: groups is {groups!r}: give {{"name": "value", ...}}')
    return {name: text(groups, name, f"{where}: groups") for name in groups}


def _texts(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = record.get(name)
    texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    if not texts or not values or not all(value.strip() for value in values):
        raise UserError(f"{where}: {name} is {values!r}: give a list of texts")
    return tuple(value.strip() for value in values)
