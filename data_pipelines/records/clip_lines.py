"""Clips on their way into records: lines of text on disk, dealt out to shards by a hash of the id.

    WORK/clips              a line per clip: split, SHA-256 of its id, state of its file, its JSON
    WORK/parts/<number>     the same lines, those of shard <number> of each split

Neither memory nor order depends on how many clips there are: one pass writes the lines, a second
deals them out (`line_buckets`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_pipelines.records import line_buckets
from data_pipelines.records.schema import AnnotatedClip, QAPair, RecordError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipLine:
    """One line: the clip's JSON as `to_line` makes it, and what decides where it goes."""

    split: str
    key: str
    file: str
    clip: str

    @classmethod
    def of(cls, clip: AnnotatedClip) -> "ClipLine":
        """Make the line of a clip whose audio is a path; raises `OSError` where there is none."""
        status = Path(clip.audio).stat()
        return cls(
            split=clip.split,
            key=hashlib.sha256(clip.clip_id.encode()).hexdigest(),
            file=f"{status.st_size}|{status.st_mtime_ns}",
            clip=to_line(clip),
        )

    @classmethod
    def read(cls, path: Path) -> Iterator["ClipLine"]:
        """Read the lines of a file one by one."""
        for line in line_buckets.read_lines(path):
            split, key, state, clip = line.split("\t")
            yield cls(split=split, key=key, file=state, clip=clip)

    @property
    def text(self) -> str:
        """The line as it is written; JSON has no tab and no newline of its own."""
        return f"{self.split}\t{self.key}\t{self.file}\t{self.clip}\n"

    def shard(self, shards: int) -> int:
        """Return the number of the clip's shard, which follows from its id alone."""
        return int(self.key[:16], 16) * shards >> 64


def to_line(clip: AnnotatedClip) -> str:
    """Write a clip whose audio is a path as one line of JSON."""
    return json.dumps(fields_of(clip) | {"audio": str(Path(clip.audio).resolve())})


def from_line(line: str) -> AnnotatedClip:
    """Read what `to_line` writes."""
    fields = json.loads(line)
    fields["audio"] = Path(fields["audio"])
    fields["tags"] = tuple(fields["tags"])
    fields["pairs"] = tuple(QAPair(**pair) for pair in fields["pairs"])
    return AnnotatedClip(**fields)


def fields_of(clip: AnnotatedClip) -> dict[str, Any]:
    """Return the fields of a clip as lists and dicts."""
    fields = {field.name: getattr(clip, field.name) for field in dataclasses.fields(AnnotatedClip)}
    pairs = [dataclasses.asdict(pair) for pair in clip.pairs]
    return fields | {"tags": list(clip.tags), "pairs": pairs}


def deal_out(lines: Iterable[ClipLine], folder: Path, *, shards: int) -> None:
    """Write each line into the file of its shard, and require that no clip id is used twice.

    Raises:
        RecordError: an id that two clips have, whatever their splits.
    """
    line_buckets.deal_out(((line.shard(shards), line.text) for line in lines), folder)
    for path in folder.iterdir():
        seen: set[str] = set()
        for line in ClipLine.read(path):
            if line.key in seen:
                raise RecordError(
                    f"clip {from_line(line.clip).clip_id!r}: field 'clip_id' is used twice; "
                    "ids must differ, also between splits"
                )
            seen.add(line.key)


def lines_of_shard(folder: Path, *, split: str, number: int) -> list[ClipLine]:
    """Read the lines of one shard of one split, in the order of the shard."""
    lines = [line for line in ClipLine.read(folder / str(number)) if line.split == split]
    return sorted(lines, key=lambda line: line.key)
