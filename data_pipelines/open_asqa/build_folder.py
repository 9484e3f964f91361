"""The folder of a build: what each step leaves there for the next ones.

    DIR/build.json                    seed, sources, hashes of their metadata; written by `build`
    DIR/leakage.json                  clips of benchmarks that were left out, by rule
    DIR/replies.sqlite                every reply of a language model, kept for good
    DIR/SOURCE/clips.jsonl            a `SourceClip` a line, sorted by clip_id
    DIR/SOURCE/quarantine.jsonl       {"where", "reason"} of each row that was left out
    DIR/SOURCE/spoken_text.jsonl      {"clip_id", "text", "raw", "reason", ...}, by `transcribe`
    DIR/SOURCE/style.jsonl            {"clip_id", "pitch", "speed", "volume", ...}, by `style`
    DIR/SOURCE/closed_ended.jsonl     {"clip_id", "task", "question", "answer", "wording"} a line
    DIR/SOURCE/open_ended.jsonl       {"clip_id", "question", "answer", ...}, by `generate`
    DIR/SOURCE/accepted.jsonl         the same lines, those that `filter` accepts
    DIR/SOURCE/refused.jsonl          the others, with "reason"

A file that is there is whole: each is written beside its place and renamed at its end.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError

BUILD = "build.json"
LEAKAGE = "leakage.json"
REPLIES = "replies.sqlite"
CLIPS = "clips.jsonl"
QUARANTINE = "quarantine.jsonl"
SPOKEN_TEXT = "spoken_text.jsonl"
STYLE = "style.jsonl"
CLOSED_ENDED = "closed_ended.jsonl"
OPEN_ENDED = "open_ended.jsonl"
ACCEPTED = "accepted.jsonl"
REFUSED = "refused.jsonl"


@dataclasses.dataclass(frozen=True)
class BuildFolder:
    """A folder that `build` has made, or is making."""

    root: Path

    def sources(self) -> list[str]:
        """Return the sources whose clips are there, in the order of the registry.

        Raises:
            UserError: there are none.
        """
        built = [name for name in SOURCES if self.file(name, CLIPS).is_file()]
        if not built:
            raise UserError(
                f"{self.root} holds no clips: make them with `python -m data_pipelines.open_asqa "
                f"build --sources sources.toml --out {self.root}`"
            )
        return built

    def file(self, source: str, name: str) -> Path:
        """Return where a file of a source is."""
        return self.root / source / name

    def clips(self, source: str) -> Iterator[SourceClip]:
        """Yield the clips of a source, in the order of their ids."""
        yield from map(SourceClip.from_json, self.lines(source, CLIPS))

    def lines(self, source: str, name: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a file of a source; none where it is not there."""
        path = self.file(source, name)
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
