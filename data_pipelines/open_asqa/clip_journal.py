"""What was found of audio files, kept for good: a result is never made twice, whatever is killed.

A journal is a JSON Lines file to which results are appended as they are ready, in any order. Each
names its audio, so clips of several sources with one file share a result, and a file that was
changed gets a new one. Only places in the file are held in memory.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import DELETE, JsonlWriter

_NAMED = 3  # last parts of a path by which a file is known: disks are mounted elsewhere, too


def audio_name(path: str | os.PathLike) -> str:
    """Name the content of an audio file: by its path's end, its size and when it was changed.

    Raises:
        OSError: it is not there.
    """
    path = Path(path)
    stat = path.stat()
    return f"{'/'.join(path.parts[-_NAMED:])}:{stat.st_size}:{int(stat.st_mtime)}"


def name_of(clip: SourceClip) -> str | None:
    """Name the audio of a clip; None where there is none, or none any more."""
    if not clip.audio:
        return None
    try:
        return audio_name(clip.audio)
    except FileNotFoundError:
        return None


class ClipJournal:
    """Results by the `audio_name` of what they are of."""

    def __init__(self, path: Path):
        """Open the journal at `path`, made where it is not there; this process alone may write.

        Raises:
            UserError: a line of it is broken.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._reader = path.open("rb")
        self._writer = JsonlWriter(path)
        self._places: dict[int, int] = {}
        self._end = 0
        for line in self._reader:
            self._places[_key(self._parsed(line)["audio"])] = self._end
            self._end += len(line)

    def __len__(self) -> int:
        """Return how many results there are."""
        return len(self._places)

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the result of this audio; None where there is none yet."""
        place = self._places.get(_key(name))
        if place is None:
            return None
        self._reader.seek(place)
        record = self._parsed(self._reader.readline())
        return record if record["audio"] == name else None

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep a result, which from now on survives this process."""
        self._writer.append({"audio": name, **result})
        self._places[_key(name)], self._end = self._end, os.fstat(self._reader.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parsed(self, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("audio"), str):
                return record
        raise UserError(f"{self.path} has a line {line[:60]!r}, which is no result; {DELETE}")


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
