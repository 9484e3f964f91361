"""The official rows of a build, clip by clip, each with where it comes from.

Rows stand in the order of the registry, then of clip ids; of a clip the closed-ended ones first.
Open-ended rows have the names of the released JSON, which differ from those of closed-ended ones
for speech. A clip whose audio nobody has found yet is called /open_asqa/SOURCE/FILE: the file name
lets `write_records --audio-root` find it.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.lines_by_clip import ClipLines
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError

OPEN_TASK = "open-ended question"
# File -> the texts that a line must have.
_NEEDS = {
    build_folder.CLIPS: (),
    build_folder.SPOKEN_TEXT: ("text",),
    build_folder.CLOSED_ENDED: ("task", "question", "answer"),
    build_folder.OPEN_ENDED: ("question", "answer"),
    build_folder.ACCEPTED: ("question", "answer"),
}
_PAIR = ("clip_id", "task", "question", "answer")  # what a row says already


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergedRow:
    """An official row and its origin."""

    fields: Mapping[str, str]
    origin: Mapping[str, Any]


def input_files(folder: BuildFolder, source: str) -> list[Path]:
    """Return the files of a source that its rows are made of.

    Open-ended pairs are those that `filter` accepted; all that were generated where it has not run.
    """
    accepted = folder.file(source, build_folder.ACCEPTED)
    opened = build_folder.ACCEPTED if accepted.is_file() else build_folder.OPEN_ENDED
    names = (build_folder.CLIPS, build_folder.SPOKEN_TEXT, build_folder.CLOSED_ENDED, opened)
    return [folder.file(source, name) for name in names]


def open_dataset(clip: SourceClip) -> str:
    """Return the `dataset` of open-ended rows about a clip."""
    closed, opened = (names.split(", ") for names in SOURCES[clip.source].datasets)
    return clip.dataset if set(opened) <= set(closed) else opened[0]


def audio_id(clip: SourceClip) -> str:
    """Return what rows call the audio of a clip."""
    return clip.audio or f"/open_asqa/{clip.source}/{clip.files[0]}"


class SourceRows:
    """The rows of one source, read once; `places` says how far, to go on from there.

    Attributes:
        counts: clips, closed, open, silent (clips without spoken text), left over (lines about
            clips that the build no longer has).
    """

    def __init__(self, folder: BuildFolder, source: str, *, places: list[int] | None = None):
        """Open the files of a source, at the places of before if they are given."""
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._files = [
            self._stack.enter_context(_opened(path, place=place, root=folder.root))
            for path, place in zip(input_files(folder, source), places or [0, 0, 0, 0], strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def places(self) -> list[int]:
        """Bytes read of each file, between two clips."""
        return [file.place for file in self._files]

    def clips(self) -> Iterator[tuple[SourceClip, list[MergedRow]]]:
        """Yield each clip with its rows.

        Raises:
            UserError: a file is broken; the message names it and the place.
        """
        clips, spoken, closed, opened = self._files
        before = 0
        while (name := clips.next_id) is not None:
            found = clips.of(name)
            if len(found) > 1:
                raise UserError(
                    f"{clips.path} has clip {name!r} twice: make it again with "
                    f"`{build_folder.MADE_BY[clips.path.name]}`"
                )
            clip = self._folder.clip(found[0])
            text = next((line["text"] for line in spoken.of(name)), "")
            rows = [
                _row(clip, line, text=text, kind="closed", task=line["task"], dataset=clip.dataset)
                for line in closed.of(name)
            ]
            rows += [
                _row(clip, line, text=text, kind="open", task=OPEN_TASK, dataset=open_dataset(clip))
                for line in opened.of(name)
            ]
            left = sum(file.left_over for file in self._files)
            kinds = Counter(row.origin["kind"] for row in rows)
            self.counts.update(
                {"clips": 1, **kinds, "silent": int(not text), "left over": left - before}
            )
            before = left
            yield clip, rows
        for file in self._files:
            file.finish()
        self.counts["left over"] += sum(file.left_over for file in self._files) - before


def _opened(path: Path, *, place: int, root: Path) -> ClipLines:
    remake = f"{build_folder.MADE_BY[path.name]} {root}"
    return ClipLines(path, place=place, needs=_NEEDS[path.name], remake=remake)


def _row(
    clip: SourceClip, line: Mapping[str, Any], *, text: str, kind: str, task: str, dataset: str
) -> MergedRow:
    fields = {
        "instruction": line["question"],
        "input": text,
        "audio_id": audio_id(clip),
        "dataset": dataset,
        "task": task,
        "output": line["answer"],
    }
    if clip.split != "train":
        fields["split"] = clip.split
    origin = {"source": clip.source, "clip_id": clip.clip_id, "kind": kind, "where": clip.where}
    origin |= {"licence": clip.licence}
    origin |= {name: value for name, value in line.items() if name not in _PAIR}
    return MergedRow(fields=fields, origin=origin)
