"""Clips left out of the records because their audio cannot be read: a report, never silence.

OUT/quarantine.jsonl    {"clip_id", "audio", "dataset", "split", "pairs", "reason"} a line
"""

import dataclasses
import json
import os
from collections.abc import Sequence
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
    """The entry of a clip whose audio is a path."""
    return Quarantined(
        clip_id=clip.clip_id,
        audio=str(clip.audio),
        dataset=clip.dataset,
        split=clip.split,
        pairs=len(clip.pairs),
        reason=reason,
    )


def without_missing(
    clips: Sequence[AnnotatedClip],
) -> tuple[list[AnnotatedClip], list[Quarantined]]:
    """The clips whose audio file is there, and entries of the others."""
    there, gone = [], []
    for clip in clips:
        if os.access(clip.audio, os.R_OK):
            there.append(clip)
        else:
            why = f"clip {clip.clip_id!r}: field 'audio': cannot read {clip.audio}"
            gone.append(entry(clip, reason=why))
    return there, gone


def check(left_out: Sequence[Quarantined], *, written: int, most: float) -> None:
    """Refuse more than the share `most` of the clips; a wrong folder must not pass as bad audio.

    Raises:
        UserError: names the first clip, the number and what to do.
    """
    total = written + len(left_out)
    if not left_out or (written and len(left_out) <= most * total):
        return
    more = f" (and {len(left_out) - 1} more clips)" if len(left_out) > 1 else ""
    raise UserError(
        f"{left_out[0].reason}{more}; {len(left_out)} of {total} clips cannot be read and at most "
        f"{most:.2%} may be left out: repair or remove them, or raise --max-quarantined; nothing "
        "was written"
    )


def write(path: Path, left_out: Sequence[Quarantined]) -> None:
    """Write the report, empty when nothing was left out."""
    lines = [json.dumps(dataclasses.asdict(found)) + "\n" for found in left_out]
    path.write_text("".join(lines), encoding="utf-8")
