"""Tables of clips cut from YouTube videos: VGGSound's and AudioCaps'.

vggsound.csv             no header: YouTube id, start in seconds, label, train or test
train.csv val.csv test.csv (AudioCaps)      audiocap_id,youtube_id,start_time,caption
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.metadata.table_files import RecordProblems, csv_rows
from ltu_jax.core.errors import UserError

VGGSOUND = "VGGSound's list of clips: YouTube id, start seconds, label, split"
VGGSOUND_SPLITS = ("test", "train")
_VGGSOUND_COLUMNS = ("youtube id", "start", "label", "split")
_AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoClip:
    """A line of VGGSound: a clip of ten seconds and its class."""

    where: str
    video: str
    start: int
    label: str
    split: str


def vggsound(path: Path, *, problems: RecordProblems) -> Iterator[VideoClip]:
    """Yield the clips in the order of the list; `problems` takes lines that are broken.

    Raises:
        UserError: no file.
    """
    rows = csv_rows(
        path,
        columns=_VGGSOUND_COLUMNS,
        expected=VGGSOUND,
        header=_VGGSOUND_COLUMNS,
        problems=problems,
    )
    for where, row in rows:
        clip = None
        with problems.record():
            video, start, label, split = (row[name] for name in _VGGSOUND_COLUMNS)
            if split not in VGGSOUND_SPLITS:
                raise UserError(f"{where}: split is {split!r}: it should be test or train")
            if not start.isdecimal():
                raise UserError(f"{where}: start is {start!r}: it should be whole seconds")
            if not video or not label.strip():
                raise UserError(f"{where}: no YouTube id or no label")
            clip = VideoClip(where=where, video=video, start=int(start), label=label, split=split)
        if clip is not None:
            yield clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionedVideo:
    """A clip of AudioCaps: where on YouTube it starts, ids and texts of its captions."""

    where: str
    youtube_id: str
    start_time: str
    ids: list[str]
    captions: list[str]


def audiocaps(
    path: Path, *, problems: RecordProblems, captions: tuple[int, ...]
) -> list[CaptionedVideo]:
    """Return the clips of a table in the order of their first lines.

    Args:
        path: a table of AudioCaps.
        problems: takes lines and clips that are broken.
        captions: how many a clip may have: one in the training table, five in the others.

    Raises:
        UserError: no file, or one without rows.
    """
    clips: dict[str, CaptionedVideo] = {}
    ids = set()
    rows = csv_rows(
        path, columns=_AUDIOCAPS_COLUMNS, expected="a table of AudioCaps", problems=problems
    )
    for where, row in rows:
        with problems.record():
            name, start, caption_id = row["youtube_id"], row["start_time"], row["audiocap_id"]
            if not name or not row["caption"].strip():
                raise UserError(f"{where}: an empty youtube_id or caption")
            if not start.isdecimal() or not caption_id.isdecimal():
                raise UserError(
                    f"{where}: start_time {start!r} and audiocap_id {caption_id!r} should be "
                    "numbers"
                )
            if caption_id in ids:
                raise UserError(f"{where}: audiocap_id {caption_id} is listed twice")
            ids.add(caption_id)
            clip = clips.setdefault(
                name,
                CaptionedVideo(where=where, youtube_id=name, start_time=start, ids=[], captions=[]),
            )
            if clip.start_time != start:
                raise UserError(
                    f"{where}: {name!r} starts at {start} here and {clip.start_time} above"
                )
            clip.ids.append(caption_id)
            clip.captions.append(row["caption"].strip())
    if not clips and not problems.found:
        raise UserError(f"{path} has no rows: copy it again")
    for name, clip in list(clips.items()):
        if len(clip.captions) not in captions:
            del clips[name]
            problems.found.append(
                f"{path}: {clip.youtube_id!r} has {len(clip.captions)} captions, where this table "
                f"has {' or '.join(map(str, captions))} a clip: is it another table, or cut off?"
            )
    return list(clips.values())
