"""MMAU test-mini: 1,000 multiple-choice questions about audio (Sakshi et al. 2024, Sakshi113/MMAU).

Published layout: `mmau-test-mini.json`, a list of

    {"id", "audio_id": "./test-mini-audios/<id>.wav", "question", "choices": [...], "answer",
     "dataset", "task", "split", "category", "sub-category", "difficulty"}

with the audio beside it. The releases of 2024 and v05.15.25 have the same form. The prompt is the
one that MMAU's authors use (NVIDIA/audio-flamingo#29): the question, "Choose the correct option
from the following options:", and one "(A) option" a line.
"""

import string
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.metadata.table_files import check_split
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems, json_records, text

SPLITS = ("test-mini",)

_EXPECTED = "MMAU's questions with answers, mmau-test-mini.json of Sakshi113/MMAU"
_GROUPS = ("task", "difficulty", "category", "sub-category")


def read(data: Path, *, split: str) -> Corpus:
    """Read all questions in the order of the file.

    Options may repeat, as some do in the release. A `category` that is a list (13 of v05.15.25) is
    read as its names with commas between.

    Raises:
        UserError: unknown split; no file or broken JSON; a record that lacks a field, is of another
            split, or whose answer is none of its choices; an id used twice.
    """
    check_split(split, SPLITS, dataset="MMAU")
    path = data / "mmau-test-mini.json"
    collected = CollectedItems()
    for where, record in json_records(path, expected=_EXPECTED, problems=collected):
        with collected.record():
            if record.get("split") != split:
                raise UserError(
                    f"{where}: split is {record.get('split')!r}: it should be {split!r}"
                )
            question, answer = text(record, "question", where), text(record, "answer", where)
            options = _options(record, where)
            if answer not in options:
                raise UserError(f"{where}: answer {answer!r} is none of the choices {options}")
            audio = str(PurePosixPath(text(record, "audio_id", where)))
            clip = AudioClip(clip_id=audio, audio=data / audio, cluster=audio)
            item = Item(
                item_id=text(record, "id", where),
                clip_id=audio,
                row="mmau",
                question=_prompt(question, options),
                references=(answer,),
                choices=options,
                groups={name: _group(record, name, where) for name in _GROUPS},
            )
            collected.add(item, clip, where=where)
    return collected.corpus(path, split=split)


def _prompt(question: str, options: tuple[str, ...]) -> str:
    lines = [
        f"({letter}) {option}"
        for letter, option in zip(string.ascii_uppercase, options, strict=False)
    ]
    return "\n".join((f"{question} Choose the correct option from the following options:", *lines))


def _options(record: dict[str, Any], where: str) -> tuple[str, ...]:
    options = record.get("choices")
    strings = isinstance(options, list) and all(isinstance(option, str) for option in options)
    if not strings or not 2 <= len(options) <= len(string.ascii_uppercase):
        raise UserError(f"{where}: field 'choices' is {options!r}: it should be a list of texts")
    return tuple(option.strip() for option in options)


def _group(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return text(record, name, where)
