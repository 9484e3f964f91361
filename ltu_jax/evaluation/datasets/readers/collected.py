"""Items and clips that a reader collects from the metadata, each id once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import (
    RecordProblems,
    UnusableRecords,
    json_file,
)
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item


class CollectedItems(RecordProblems):
    """Items and their clips in the order of the metadata, and what is wrong with other records."""

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, Item] = {}
        self._clips: dict[str, AudioClip] = {}

    def add(self, item: Item, clip: AudioClip, *, where: str) -> None:
        """Take one question and its clip.

        Raises:
            UserError: the item's id was taken before; the clip's id stands for another clip.
        """
        if item.item_id in self._items:
            raise UserError(f"{where}: {item.item_id!r} is listed twice")
        known = self._clips.setdefault(clip.clip_id, clip)
        if known != clip:
            raise UserError(
                f"{where}: clip {clip.clip_id!r} contradicts an earlier line: {clip} here, {known} "
                "there; one clip has one file, cluster and transcript"
            )
        self._items[item.item_id] = item

    def corpus(self, source: Path, *, split: str) -> Corpus:
        """Return all that was added.

        Raises:
            BadRecords: some records cannot be asked; it has the rest.
            UserError: there is nothing, which names `source`.
        """
        rest = Corpus(items=tuple(self._items.values()), clips=self._clips) if self._items else None
        if self.found:
            raise UnusableRecords(self.found, source=source, rest=rest)
        if rest is None:
            raise UserError(f"{source} has nothing of split {split!r}: copy it again")
        return rest


def json_records(
    path: Path, *, expected: str, problems: RecordProblems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("path, record N", object) for each element of a JSON list, N from 1.

    `problems` takes elements that are none.
    """
    records = json_file(path, expected=expected)
    if not isinstance(records, list):
        raise UserError(f"{path} is not a JSON list: it should be {expected}")
    for number, record in enumerate(records, start=1):
        where = f"{path}, record {number}"
        if isinstance(record, dict):
            yield where, record
        else:
            problems.found.append(f"{where} is {str(record)[:60]!r}: it should be an object")


def text(record: dict[str, Any], name: str, where: str) -> str:
    """Return the text under `name`, without spaces around it; `UserError` when there is none."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: field {name!r} is {value!r}: it should be text")
    return value.strip()
