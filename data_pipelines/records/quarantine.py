"""Clips left out of the records because their audio cannot be read: a report, never silence.

OUT/quarantine.jsonl    {"clip_id", "audio", "dataset", "split", "pairs", "reason"} a line
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipelines.records.schema import AnnotatedClip
from ltu_jax.core.errors import UserError

MAX_SHARE = 0.01  # of the clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A clip left out because its audio cannot be read, and how many pairs went with it."""

    clip_id: str
    audio: str
    dataset: str
    split: str
    pairs: int
    reason: str


def entry(clip: AnnotatedClip, *, reason: str) -> Quarantined:
    """Return the entry of a clip whose audio is a path."""
    return Quarantined(
        clip_id=clip.clip_id,
        audio=str(clip.audio),
        dataset=clip.dataset,
        split=clip.split,
        pairs=len(clip.pairs),
        reason=reason,
    )


class Quarantine:
    """The clips left out of a records directory, and the share of all clips that may be."""

    def __init__(self, entries: Iterable[Quarantined] = (), *, max_share: float = MAX_SHARE):
        """Begin with `entries`, which a reader of the clips could not use."""
        self.entries, self.max_share = list(entries), max_share

    def readable(self, clips: Iterable[AnnotatedClip]) -> Iterator[AnnotatedClip]:
        """Yield the clips whose audio file can be read; the others are left out."""
        for clip in clips:
            if os.access(clip.audio, os.R_OK):
                yield clip
            else:
                why = f"clip {clip.clip_id!r}: field 'audio': cannot read {clip.audio}"
                self.entries.append(entry(clip, reason=why))

    def check(self, *, written: int) -> None:
        """Refuse more than `max_share`; a wrong folder must not pass as bad audio.

        Raises:
            UserError: names the first clip, the number and what to do.
        """
        total = written + len(self.entries)
        if not self.entries or (written and len(self.entries) <= self.max_share * total):
            return
        more = f" (and {len(self.entries) - 1} more clips)" if len(self.entries) > 1 else ""
        raise UserError(
            f"{self.entries[0].reason}{more}; {len(self.entries)} of {total} clips cannot be read "
            f"and at most {self.max_share:.2%} may be left out: repair or remove them, or raise "
            "--max-quarantined; nothing was written"
        )

    def write(self, path: Path) -> None:
        """Write the report, empty when nothing was left out."""
        lines = [json.dumps(dataclasses.asdict(left_out)) + "\n" for left_out in self.entries]
        path.write_text("".join(lines), encoding="utf-8")
