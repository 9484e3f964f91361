"""The lines of a file about clips, asked for clip by clip in the order of their ids."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from ltu_jax.core.errors import UserError


class ClipLines:
    """A file of JSON lines with a "clip_id" each, in ascending order; read once, from a place on.

    Attributes:
        left_over: lines so far about clips that nobody asked for.
    """

    def __init__(self, path: Path, *, place: int = 0, needs: Sequence[str] = (), remake: str = ""):
        """Open the file; one that is not there has no lines.

        Args:
            path: the file.
            place: byte at which to begin, a `place` of before.
            needs: fields beside clip_id that every line must have, each a text.
            remake: the command that makes the file, for messages.
        """
        self.path, self.place, self.left_over = path, place, 0
        self._needs, self._remake = ("clip_id", *needs), remake
        self._file = path.open("rb") if path.is_file() else None
        if self._file is not None:
            self._file.seek(place)
        self._last = ""
        self._next = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def next_id(self) -> str | None:
        """The clip of the next line; None at the end."""
        return self._next[0] if self._next is not None else None

    def of(self, clip_id: str) -> list[dict[str, Any]]:
        """Return the lines about a clip; ask in the order of the ids.

        Raises:
            UserError: a line is no JSON object with the fields that it needs, or not in its place.
        """
        lines = []
        while self._next is not None and self._next[0] <= clip_id:
            if self._next[0] == clip_id:
                lines.append(self._next[1])
            else:
                self.left_over += 1
            self._go_on()
        return lines

    def finish(self) -> None:
        """Read on to the end: what is still there is about clips that nobody asked for."""
        while self._next is not None:
            self.left_over += 1
            self._go_on()

    def _go_on(self) -> None:
        self.place += self._next[2]
        self._next = self._read()

    def _read(self) -> tuple[str, dict[str, Any], int] | None:
        raw = self._file.readline() if self._file is not None else b""
        if not raw:
            return None
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            raise self._error("is no JSON", raw) from None
        if not isinstance(line, dict):
            raise self._error("is no JSON object", raw)
        for field in self._needs:
            if not isinstance(line.get(field), str):
                raise self._error(f"has no text {field!r}", raw)
        name = line["clip_id"]
        if name < self._last:
            raise self._error(f"is about {name!r}, which belongs before {self._last!r}", raw)
        self._last = name
        return name, line, len(raw)

    def _error(self, what: str, raw: bytes) -> UserError:
        return UserError(
            f"{self.path}, the line at byte {self.place} ({raw[:60]!r}), {what}: delete the file "
            f"and make it again with `{self._remake}`"
        )
