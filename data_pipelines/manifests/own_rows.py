"""A person's own questions about a folder of clips: read, checked, and split by clip.

    {"audio": "kettle.wav", "question": "What do you hear?", "answer": "A kettle."}

audio: a file below the folder. Optional are spoken_text (what is said; "" for nothing), cluster (of
clips of one recording, which stay on one side) and split ("train" or "val", of all rows or none).
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.manifests.row_groups import share_of
from data_pipelines.metadata.table_files import RecordProblems, json_lines
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import inside
from ltu_jax.preprocessing.audio import probe

TRAIN, VALIDATION = "train", "val"
DATASET, CLOSED, OPEN = "own", "cla_own", "open_own"
_NEEDED, _OPTIONAL = ("audio", "question", "answer"), ("spoken_text", "cluster", "split")
_ARTICLE = re.compile(r"(an?|the|some)\s+", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnRow:
    """A question about a clip, and its answer.

    Attributes:
        audio: name below the folder of clips.
        path: of the file.
        spoken_text: None where nobody said what is spoken.
        cluster: of clips of one recording.
        split: None where the file does not tell.
        label: the answer as a class; None where answers to this question are no classes.
    """

    audio: str
    path: Path
    question: str
    answer: str
    spoken_text: str | None
    cluster: str
    split: str | None
    label: str | None = None


def read(file: Path, *, folder: Path, validation_share: float) -> list[OwnRow]:
    """Read all rows, each with its side and its class.

    Raises:
        UserError: one for everything that is wrong: lines that are no such rows, empty answers,
            clips that are not there or cannot be read; or no class to learn and to check.
    """
    if not 0 < validation_share < 1:
        raise UserError(f"--val-share {validation_share}: give a share between 0 and 1")
    if not folder.is_dir():
        raise UserError(f"--audio {folder} is no folder: give that of the clips in {file}")
    problems, rows = RecordProblems(), []
    for where, record in json_lines(
        file, expected="a JSON Lines file of questions", problems=problems
    ):
        with problems.record():
            rows.append(_row(record, where, folder=folder))
    for path in dict.fromkeys(row.path for row in rows):
        with problems.record():
            probe(path)
    if not problems.found and len({row.split is None for row in rows}) > 1:
        problems.found.append(f"{file}: give every row a split, or none")
    if problems.found:
        raise UserError(
            f"{shorten(problems.found, most=3)}; mend {file} and run the command again: nothing "
            "was made"
        )
    return _split(_labelled(rows, file), file, share=validation_share)


def _row(record: Mapping[str, Any], where: str, *, folder: Path) -> OwnRow:
    unknown = [key for key in record if key not in (*_NEEDED, *_OPTIONAL)]
    if unknown:
        known = ", ".join((*_NEEDED, *_OPTIONAL))
        raise UserError(f"{where}: unknown key {unknown[0]!r}; known: {known}")
    for key in (*_NEEDED, "cluster"):
        value = record.get(key, "x" if key == "cluster" else None)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: {key} is {value!r}: give text")
    spoken, split = record.get("spoken_text"), record.get("split")
    if spoken is not None and not isinstance(spoken, str):
        raise UserError(f"{where}: spoken_text is {spoken!r}: give text, or leave it out")
    if split not in (None, TRAIN, VALIDATION):
        raise UserError(f"{where}: split is {split!r}: give {TRAIN} or {VALIDATION}")
    audio = record["audio"]
    path = inside(folder, audio, where=where, owned=True)
    if not path.is_file():
        raise UserError(f"{where}: there is no {path}")
    return OwnRow(
        audio=audio, path=path, question=record["question"].strip(),
        answer=record["answer"].strip(), spoken_text=spoken,
        cluster=record.get("cluster", audio), split=split,
    )  # fmt: skip


def _labelled(rows: Sequence[OwnRow], file: Path) -> list[OwnRow]:
    """Give rows their class: of questions with two answers or more, one of them for two clips."""
    clips: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        answers = clips.setdefault(row.question, {})
        answers.setdefault(label_of(row.answer), set()).add(row.cluster)
    classes = {
        question: answers
        for question, answers in clips.items()
        if len(answers) > 1 and max(map(len, answers.values())) > 1
    }
    if not classes:
        raise UserError(
            f"{file}: no question has two answers one of which stands for two clips, so there is "
            "nothing that could be learnt from some clips and checked on others: give several "
            "clips for each answer, in the same words"
        )
    return [
        dataclasses.replace(row, label=label_of(row.answer)) if row.question in classes else row
        for row in rows
    ]


def label_of(answer: str) -> str:
    """Return an answer as the name of a class: without article and full stop."""
    return _ARTICLE.sub("", answer.strip().rstrip(".!").strip(), count=1) or answer.strip()


def _split(rows: Sequence[OwnRow], file: Path, *, share: float) -> list[OwnRow]:
    """Give each row its side; of each class, some recordings are held out, and some never."""
    if rows[0].split is None:
        held = _held_out(rows, share=share)
        rows = [
            dataclasses.replace(row, split=VALIDATION if row.cluster in held else TRAIN)
            for row in rows
        ]
    sides = {
        side: {row.cluster for row in rows if row.split == side} for side in (TRAIN, VALIDATION)
    }
    both = sides[TRAIN] & sides[VALIDATION]
    if both:
        raise UserError(f"{file}: {shorten(sorted(both))} is in train and in val: choose one side")
    learnt = {(row.question, row.label) for row in rows if row.split == TRAIN}
    asked = [row for row in rows if row.split == VALIDATION and row.label is not None]
    if not any((row.question, row.label) in learnt for row in asked):
        raise UserError(
            f"{file}: no class is both in train and in val: give some clips of each class the "
            "split val, or leave split out of every row"
        )
    return rows


def _held_out(rows: Iterable[OwnRow], *, share: float) -> set[str]:
    """Choose recordings of each class by a hash of their names; at least one, and never all."""
    first: dict[str, tuple[str, str]] = {}
    for row in rows:
        if row.label is not None:
            first.setdefault(row.cluster, (row.question, row.label))
    by_class: dict[tuple[str, str], list[str]] = {}
    for cluster in sorted(first, key=lambda name: share_of(name, salt="own")):
        by_class.setdefault(first[cluster], []).append(cluster)
    held: set[str] = set()
    for clusters in by_class.values():
        count = min(max(1, math.floor(share * len(clusters) + 0.5)), len(clusters) - 1)
        held |= set(clusters[:count])
    return held


def official(row: OwnRow, *, spoken_text: str) -> dict[str, Any]:
    """Return the row as `write_records` reads it."""
    return {
        "instruction": row.question,
        "input": spoken_text,
        "audio_id": row.audio,
        "dataset": DATASET,
        "task": OPEN if row.label is None else CLOSED,
        "output": row.answer,
        "split": row.split,
    }


def questions(rows: Sequence[OwnRow], *, spoken: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the held-out questions about classes as `evaluate --jsonl` reads them.

    Args:
        rows: all of them.
        spoken: what is said, by name of the clip.
    """
    labels: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.label is not None:
            labels.setdefault(row.question, {})[row.label] = None
    return [
        {
            "audio": str(row.path.absolute()), "question": row.question, "answer": row.label,
            "task": "classification", "labels": list(labels[row.question]),
            "cluster": row.cluster, "spoken_text": spoken[row.audio],
        }
        for row in rows
        if row.split == VALIDATION and row.label is not None
    ]  # fmt: skip


def counts(rows: Iterable[OwnRow]) -> dict[str, Counter]:
    """Count the clips of each class on either side, and of rows without one."""
    seen, found = set(), {TRAIN: Counter(), VALIDATION: Counter()}
    for row in rows:
        name = row.label or "(other answers)"
        if (row.audio, name) not in seen:
            seen.add((row.audio, name))
            found[row.split][name] += 1
    return found
