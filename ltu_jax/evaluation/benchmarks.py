"""The table of tasks: rows, input modes, and the items of a benchmark with their clips.

A benchmark is a corpus folder with `<split>_items.jsonl` (questions) and `clips.jsonl` (what they
are asked about). Every item is asked in every mode, so the modes differ in the input alone.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.metrics.closed import named_class
from ltu_jax.evaluation.metrics.words import around_words


class Metric(enum.StrEnum):
    """How a row is scored."""

    ACCURACY = "accuracy"
    MACRO_F1 = "macro-F1"
    WORD_ERROR_RATE = "WER"
    CLASS_AND_WORDS = "both right"


class Mode(enum.StrEnum):
    """What the model is given of a clip.

    joint: the audio, and Whisper's transcript in the Input block.
    audio: the audio, with an empty Input block.
    text: the transcript alone; no audio tokens at all.
    shuffled: the audio of another clip of the same row (of another class wherever possible), with
        the item's own transcript. What is still answered right was not heard.
    silence: digital silence as long as the clip (to 0.1 s), with the item's own transcript.
    """

    JOINT = "joint"
    AUDIO = "audio"
    TEXT = "text"
    SHUFFLED = "shuffled"
    SILENCE = "silence"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the results table: its metric, and how many tokens an answer may have."""

    metric: Metric
    max_new_tokens: int


_NAMED = Row(metric=Metric.ACCURACY, max_new_tokens=24)
BENCHMARKS: dict[str, dict[str, Row]] = {
    "mini": {
        "sound": _NAMED,
        "background": _NAMED,
        "music": _NAMED,
        "spoken_text": Row(metric=Metric.WORD_ERROR_RATE, max_new_tokens=60),
        "gender": Row(metric=Metric.MACRO_F1, max_new_tokens=24),
        "style": _NAMED,
        "joint_questions": Row(metric=Metric.CLASS_AND_WORDS, max_new_tokens=60),
        # Voice variants and recording collections that occur in the test split only.
        "unseen_voice": _NAMED,
        "real_sound": _NAMED,
    }
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip as the benchmark knows it; `truth_text` is the script that was spoken, if one was."""

    clip_id: str
    audio: Path
    seconds: float
    spoken_text: str
    truth_text: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A question about a clip; `label` is the class that its reference answer names, if closed."""

    item_id: str
    clip_id: str
    row: str
    question: str
    answer: str
    choices: tuple[str, ...]
    label: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The items to ask, and `partner`: item id -> the clip heard instead in shuffled mode."""

    name: str
    split: str
    rows: dict[str, Row]
    items: tuple[Item, ...]
    clips: dict[str, Clip]
    partner: dict[str, str]


def read_benchmark(
    data: Path, *, name: str, split: str, limit: int | None = None, seed: int = 0
) -> Benchmark:
    """Read the items of one split and the clips they ask about.

    Args:
        data: corpus folder.
        name: key of `BENCHMARKS`.
        split: "test", or "val" to choose settings on.
        limit: at most this many items a row, drawn by a hash of the item id (a row may be sorted by
            class); None for all.
        seed: of the shuffled mode's pairing.

    Raises:
        UserError: the benchmark is unknown; a file is missing or broken; an item names an unknown
            row or clip, lacks a field, or its answer names none or several of its choices.
    """
    if name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {name!r}; known: {', '.join(sorted(BENCHMARKS))}")
    rows = BENCHMARKS[name]
    path = data / f"{split}_items.jsonl"
    clips = {clip.clip_id: clip for clip in _clips(data, split)}
    items = [_item(record, where, rows=rows, clips=clips) for where, record in _lines(path)]
    if not items:
        raise UserError(f"{path} has no items; rebuild the corpus")
    repeated = len(items) - len({item.item_id for item in items})
    if repeated:
        raise UserError(f"{path}: {repeated} items repeat an item_id of another; make ids unique")
    partner = pairing(items, seed=seed)
    return Benchmark(
        name=name,
        split=split,
        rows=rows,
        items=tuple(item for row in rows for item in _first(items, row, limit)),
        clips=clips,
        partner=partner,
    )


def pairing(items: Sequence[Item], *, seed: int) -> dict[str, str]:
    """item id -> another clip of the same row and choices, of another class wherever possible.

    Within a group the items are sorted by class, by `seed` within one, and turned by the size of
    the largest class, which parts all classes unless one has more than half of the items. Other
    turns are tried until no item meets its own clip; a row of one clip borrows from the rest.
    """
    groups: dict[tuple[str, frozenset[str]], list[Item]] = {}
    for item in items:
        groups.setdefault((item.row, frozenset(item.choices)), []).append(item)
    partner = {}
    for group in groups.values():
        ordered = sorted(group, key=lambda item: (item.label or "", _rank(item.clip_id, seed)))
        clips = [item.clip_id for item in ordered]
        labels = [item.label for item in ordered]

        largest = max(map(labels.count, set(labels))) if labels[0] is not None else 1
        best = None
        for step in range(len(group)):
            turn = (largest + step) % len(group)
            same_clip = _equal(clips, clips[turn:] + clips[:turn])
            same_label = _equal(labels, labels[turn:] + labels[:turn]) if labels[0] else 0
            if best is None or (same_clip, same_label) < best[:2]:
                best = (same_clip, same_label, turn)
            if best[:2] == (0, 0):
                break
        turn = best[2]
        for item, heard in zip(ordered, clips[turn:] + clips[:turn], strict=True):
            partner[item.item_id] = (
                heard if heard != item.clip_id else _any_other(item, items, seed=seed)
            )
    return partner


def _any_other(item: Item, items: Sequence[Item], *, seed: int) -> str:
    """Another clip, of the same row if it has one, and of another class if there is one."""
    others = [other for other in items if other.clip_id != item.clip_id]
    if not others:
        raise UserError(
            f"all items ask about the one clip {item.clip_id!r}: the shuffled mode needs another; "
            "add clips, or leave 'shuffled' out of --modes"
        )
    return min(
        others,
        key=lambda other: (
            other.row != item.row,
            item.label is not None and other.label == item.label,
            _rank(other.clip_id, seed),
        ),
    ).clip_id


def _first(items: Sequence[Item], row: str, limit: int | None) -> list[Item]:
    own = [item for item in items if item.row == row]
    if limit is None or len(own) <= limit:
        return own
    drawn = {item.item_id for item in sorted(own, key=lambda item: _rank(item.item_id, 0))[:limit]}
    return [item for item in own if item.item_id in drawn]


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _equal(left: Sequence[Any], right: Sequence[Any]) -> int:
    return sum(a == b for a, b in zip(left, right, strict=True))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.exists():
        raise UserError(
            f"{path} does not exist: build the corpus first (python -m data_pipelines.build_mini), "
            "or give its folder with --data"
        )
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{where} is not valid JSON: {error}; rebuild the corpus") from None
            if not isinstance(record, dict):
                raise UserError(f"{where} is {line.strip()[:60]!r}: give one JSON object a line")
            yield where, record


def _field(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {value!r}: give text")
    return value


def _seconds(record: dict[str, Any], where: str) -> float:
    value = record.get("seconds")
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{where}: field 'seconds' is {value!r}: give the clip's length")
    return float(value)


def _clips(data: Path, split: str) -> Iterator[Clip]:
    for where, record in _lines(data / "clips.jsonl"):
        if _field(record, "split", where) != split:
            continue
        yield Clip(
            clip_id=_field(record, "clip_id", where),
            audio=data / _field(record, "audio", where),
            seconds=_seconds(record, where),
            spoken_text=_field(record, "spoken_text", where),
            truth_text=record.get("labels", {}).get("truth_text"),
        )


def _item(
    record: dict[str, Any], where: str, *, rows: dict[str, Row], clips: dict[str, Clip]
) -> Item:
    names = ("item_id", "clip_id", "row", "question", "answer")
    texts = {name: _field(record, name, where) for name in names}
    row, clip = texts["row"], clips.get(texts["clip_id"])
    if row not in rows:
        raise UserError(f"{where}: unknown row {row!r}; known: {', '.join(rows)}")
    if clip is None:
        raise UserError(f"{where}: clip {texts['clip_id']!r} is not in clips.jsonl for this split")
    choices = tuple(record.get("choices") or ())
    label = None
    if rows[row].metric is Metric.WORD_ERROR_RATE:
        if not clip.truth_text:
            raise UserError(
                f"{where}: clip {clip.clip_id!r} has no labels.truth_text to compare with"
            )
    else:
        label = named_class(around_words(texts["answer"]), choices)
        if label is None:
            raise UserError(
                f"{where}: the answer {texts['answer']!r} names none or several of the choices "
                f"{list(choices)}: give exactly one"
            )
        if record.get("label", label) != label:
            raise UserError(
                f"{where}: the answer {texts['answer']!r} names {label!r}, but the label is "
                f"{record['label']!r}: make them agree"
            )
    return Item(**texts, choices=choices, label=label)
