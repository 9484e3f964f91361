"""The closed-ended questions of a source as a file, from all that is known of its clips by now.

`build`, `style` and `transcribe` write it at their end, each with what the earlier ones found.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.build_folder import (
    CLOSED_ENDED,
    RELATED_CLASSES,
    SPOKEN_TEXT,
    STYLE,
    BuildFolder,
)
from data_pipelines.open_asqa.class_descriptions import class_descriptions
from data_pipelines.open_asqa.closed_ended import STYLE_TASKS, ClipFindings, closed_pairs
from data_pipelines.open_asqa.registry import SOURCES, ClipSource
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.files import read_json
from ltu_jax.core.jsonl import write_jsonl

_BY_PEOPLE, _BY_WHISPER = "people", "whisper"  # who wrote the text that ASR asks for
_OF_TEXT = ("ASR", "ASR_background")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedCounts:
    """How many questions each task has, and how many clips each class without a description."""

    tasks: Counter[str]
    undescribed: Counter[str]


def write_closed_ended(folder: BuildFolder, source: str, seed: str) -> ClosedCounts:
    """Write the closed-ended questions of a source; return how many there are.

    Args:
        folder: of the build.
        source: name in the registry.
        seed: of the draws, as build.json has it.
    """
    counts = ClosedCounts(tasks=Counter(), undescribed=Counter())

    def counted() -> Iterator[Mapping[str, Any]]:
        for line in _lines(folder, source, seed, undescribed=counts.undescribed):
            counts.tasks[line["task"]] += 1
            yield line

    write_jsonl(folder.file(source, CLOSED_ENDED), counted())
    return counts


def _lines(
    folder: BuildFolder, source: str, seed: str, *, undescribed: Counter[str]
) -> Iterator[Mapping[str, Any]]:
    described, entry = class_descriptions(), SOURCES[source]
    absent = _AbsentClasses(folder, source)
    with_emotion = _asked_together(folder, source, entry, seed)
    for clip, (styles, texts) in folder.joined(source, STYLE, SPOKEN_TEXT):
        style = styles[0] if styles else {}
        text, by = _spoken(clip, texts, copied=entry.copied_text)
        if not clip.gender and style.get("gender"):
            clip = dataclasses.replace(clip, gender=style["gender"])
        findings = ClipFindings(
            spoken_text=text,
            style={axis: style[axis] for axis in STYLE_TASKS if style.get(axis)},
            descriptions=described,
            absent=absent.of(clip),
            gender_with_emotion=clip.clip_id in with_emotion,
        )
        if "cla_label_des" in entry.tasks:
            undescribed.update(label for label in clip.labels if label not in described)
        tasks = entry.tasks_of.get(clip.dataset, entry.tasks)
        for pair in closed_pairs(clip, findings, tasks=tasks, seed=seed):
            line = {"clip_id": clip.clip_id, **dataclasses.asdict(pair)}
            if pair.task in _OF_TEXT:
                line["text_by"] = by
                if clip.gold_text and by == _BY_WHISPER:
                    line["gold_text"] = clip.gold_text
            yield line


def _spoken(
    clip: SourceClip, texts: Sequence[Mapping[str, Any]], *, copied: bool
) -> tuple[str, str]:
    """Return the text that ASR asks for, and who wrote it; `copied`: Whisper, once it has heard."""
    heard = texts[0]["text"] if texts and not clip.speechless else ""
    if clip.gold_text and not (copied and texts):
        return clip.gold_text, _BY_PEOPLE
    return heard, _BY_WHISPER


def _asked_together(
    folder: BuildFolder, source: str, entry: ClipSource, seed: str
) -> frozenset[str]:
    """Return the clips that are asked for gender and emotion in one question."""
    if not entry.gender_with_emotion:
        return frozenset()
    names = [clip.clip_id for clip in folder.clips(source) if clip.gender and clip.emotion]
    count = round(entry.gender_with_emotion * len(names))
    return draw.lowest(names, count, seed=f"{seed}/{source}/gender_emotion_cla")


class _AbsentClasses:
    """The classes that a clip surely lacks: those that none of its own says anything about.

    Annotators mark the most specific class, so a clip with Bark has Dog and Animal too, though they
    are not listed; what else is of the same kind is left out as well.
    """

    def __init__(self, folder: BuildFolder, source: str):
        path = folder.file(source, RELATED_CLASSES)
        self._related: Mapping[str, Sequence[str]] = read_json(path) if path.is_file() else {}

    def of(self, clip: SourceClip) -> tuple[str, ...]:
        """Return the absent classes, in a fixed order; () where nothing is known of them."""
        if not self._related or clip.events is None:
            return ()
        near = {other for label in clip.labels for other in (label, *self._related.get(label, ()))}
        return tuple(name for name in self._related if name not in near)
