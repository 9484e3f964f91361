"""The mini corpus of `make demo`: `clips.jsonl` and `<split>_items.jsonl` (see docs/data.md)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import RecordProblems, field, json_lines
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import inside
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item, Task
from ltu_jax.evaluation.metrics.words import around_words
from ltu_jax.evaluation.scoring.reading.classes import named_class

SPLITS = ("test", "val")
TASKS: Mapping[str, Task] = {
    "sound": Task.CLASSIFICATION,
    "background": Task.CLASSIFICATION,
    "music": Task.CLASSIFICATION,
    "spoken_text": Task.SPOKEN_TEXT,
    "gender": Task.GENDER,
    "style": Task.CLASSIFICATION,
    "joint_questions": Task.CLASS_AND_WORDS,
    # Voice variants and recording collections that occur in the test split only.
    "unseen_voice": Task.CLASSIFICATION,
    "real_sound": Task.CLASSIFICATION,
}
SHORT = (Task.CLASSIFICATION, Task.GENDER)  # their answers are one sentence
_EXPECTED = "a table of the mini corpus: build it first (python -m data_pipelines.build_mini)"


def read(data: Path, *, split: str) -> Corpus:
    """Read the items of one split and the clips they ask about.

    Raises:
        UserError: a file is missing or broken; an item names an unknown row or clip, lacks a field,
            or its answer names none or several of its choices.
    """
    scripts: dict[str, str | None] = {}
    clips: dict[str, AudioClip] = {}
    bad = RecordProblems()
    for where, record in json_lines(data / "clips.jsonl", expected=_EXPECTED, problems=bad):
        with bad.record():
            if field(record, "split", where) != split:
                continue
            clip_id = field(record, "clip_id", where)
            clips[clip_id] = AudioClip(
                clip_id=clip_id,
                audio=inside(data, field(record, "audio", where), where=where),
                cluster=clip_id,
                spoken_text=field(record, "spoken_text", where),
            )
            scripts[clip_id] = record.get("labels", {}).get("truth_text")
    corpus = Corpus(items=tuple(_items(data, split, clips, scripts, bad)), clips=clips)
    return bad.none_in(corpus, source=data)


def _items(
    data: Path,
    split: str,
    clips: Mapping[str, AudioClip],
    scripts: Mapping[str, str | None],
    bad: RecordProblems,
) -> Iterator[Item]:
    path = data / f"{split}_items.jsonl"
    for where, record in json_lines(path, expected=_EXPECTED, problems=bad):
        item = None
        with bad.record():
            item = _one_item(record, where, clips, scripts)
        if item is not None:
            yield item


def _one_item(
    record: dict[str, Any],
    where: str,
    clips: Mapping[str, AudioClip],
    scripts: Mapping[str, str | None],
) -> Item:
    row, clip_id = field(record, "row", where), field(record, "clip_id", where)
    if row not in TASKS:
        raise UserError(f"{where}: unknown row {row!r}; known: {', '.join(TASKS)}")
    if clip_id not in clips:
        raise UserError(f"{where}: clip {clip_id!r} is not in clips.jsonl for this split")
    if TASKS[row] is Task.SPOKEN_TEXT:
        if not scripts[clip_id]:
            raise UserError(f"{where}: clip {clip_id!r} has no labels.truth_text to compare with")
        reference = scripts[clip_id]
    else:
        reference = _label(record, where)
    return Item(
        item_id=field(record, "item_id", where),
        clip_id=clip_id,
        row=row,
        question=field(record, "question", where),
        references=(reference,),
        choices=tuple(record.get("choices") or ()),
    )


def _label(record: dict[str, Any], where: str) -> str:
    """Return the one choice that the reference answer names."""
    answer, choices = field(record, "answer", where), list(record.get("choices") or ())
    label = named_class(around_words(answer), choices)
    if label is None:
        raise UserError(
            f"{where}: the answer {answer!r} names none or several of the choices {choices}: "
            "give exactly one"
        )
    if record.get("label", label) != label:
        raise UserError(
            f"{where}: the answer {answer!r} names {label!r}, but the label is "
            f"{record['label']!r}: make them agree"
        )
    return label
