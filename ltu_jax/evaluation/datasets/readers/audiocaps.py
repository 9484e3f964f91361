"""AudioCaps: 10 s YouTube clips with five human captions each (Kim et al. 2019, cdjkim/audiocaps).

The data set is a table; its audio comes from YouTube, so users name files in different ways.

    test.csv (or dataset/test.csv)    audiocap_id,youtube_id,start_time,caption
    test/ audio/test/ audio/ wavs/    one file a clip: wav, flac or mp3

    {youtube_id}.wav                  {youtube_id}_{start_time}.wav
    Y{youtube_id}.wav                 Y{youtube_id}_{start_time}.wav
    {audiocap_id}.wav                 of any of the clip's five captions

The form that most clips have is taken for all. The test table has 975 clips; those that YouTube
has lost since stay items whose file is missing, so that they are named and counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.table_files import (
    RecordProblems,
    check_split,
    csv_rows,
    find,
    visible,
)

SPLITS = ("test", "val")

_CAPTIONS = 5
_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_WHAT = "the folder of AudioCaps, with its csv files and the audio"
_SUFFIXES = (".wav", ".flac", ".mp3")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Captioned:
    """A clip of the table: where on YouTube it starts, ids and texts of its captions."""

    youtube_id: str
    start_time: str
    ids: list[str]
    captions: list[str]


_FORMS: dict[str, Callable[[_Captioned], Sequence[str]]] = {
    "{youtube_id}": lambda clip: (clip.youtube_id,),
    "Y{youtube_id}": lambda clip: (f"Y{clip.youtube_id}",),
    "{youtube_id}_{start_time}": lambda clip: (f"{clip.youtube_id}_{clip.start_time}",),
    "Y{youtube_id}_{start_time}": lambda clip: (f"Y{clip.youtube_id}_{clip.start_time}",),
    "{audiocap_id}": lambda clip: clip.ids,
}


def read(data: Path, *, split: str) -> Corpus:
    """Read every clip of the table, in its order, with its five captions; the cluster is the video.

    Raises:
        UserError: unknown split; no table or no audio folder; a row with a broken field, an id
            twice, a video with two start times, a clip without exactly five captions; an audio
            folder whose file names have none of the forms.
    """
    check_split(split, SPLITS, dataset="AudioCaps")
    table = find(data, (f"{split}.csv", f"dataset/{split}.csv"), what=_WHAT)
    places = (split, f"audio/{split}", "audio", f"wavs/{split}", "wavs")
    folder = find(data, places, what=_WHAT)
    bad = RecordProblems()
    clips = _table(table, bad)
    if not clips:
        return bad.none_in(Corpus(items=(), clips={}), source=table)
    files = _files(folder, clips, table)
    corpus = Corpus(
        items=tuple(
            Item(
                item_id=clip.youtube_id,
                clip_id=clip.youtube_id,
                row="audiocaps",
                references=tuple(clip.captions),
            )
            for clip in clips
        ),
        clips={
            clip.youtube_id: AudioClip(clip_id=clip.youtube_id, audio=file, cluster=clip.youtube_id)
            for clip, file in zip(clips, files, strict=True)
        },
    )
    return bad.none_in(corpus, source=table)


def _table(path: Path, bad: RecordProblems) -> list[_Captioned]:
    clips: dict[str, _Captioned] = {}
    ids = set()
    for where, row in csv_rows(path, columns=_COLUMNS, what="a table of AudioCaps", problems=bad):
        with bad.record():
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
                name, _Captioned(youtube_id=name, start_time=start, ids=[], captions=[])
            )
            if clip.start_time != start:
                raise UserError(
                    f"{where}: {name!r} starts at {start} here and {clip.start_time} above"
                )
            clip.ids.append(caption_id)
            clip.captions.append(row["caption"].strip())
    if not clips and not bad.found:
        raise UserError(f"{path} has no rows: copy it again")
    for name, clip in list(clips.items()):
        if len(clip.captions) != _CAPTIONS:
            del clips[name]
            bad.found.append(
                f"{path}: {clip.youtube_id!r} has {len(clip.captions)} captions, where the test "
                f"and val tables have {_CAPTIONS} a clip: is it another table, or cut off?"
            )
    return list(clips.values())


def _files(folder: Path, clips: Sequence[_Captioned], table: Path) -> list[Path]:
    """Return the file of each clip; where it would be, for one that is missing."""
    present = {path.stem + path.suffix.lower() for path in visible(folder)}

    def names(clip: _Captioned, form: str) -> list[str]:
        return [stem + s for stem in _FORMS[form](clip) for s in _SUFFIXES if stem + s in present]

    by_form = {form: [names(clip, form) for clip in clips] for form in _FORMS}
    form = max(_FORMS, key=lambda form: sum(map(bool, by_form[form])))
    if not any(by_form[form]):
        raise UserError(
            f"{folder} has no file of the {len(clips)} clips in {table}: name them in one of the "
            f"forms {', '.join(_FORMS)} with {', '.join(_SUFFIXES)}; it holds "
            f"{shorten(sorted(present)) or 'nothing'}"
        )
    suffixes = Counter(Path(own[0]).suffix for own in by_form[form] if own)
    usual = suffixes.most_common(1)[0][0]
    return [
        folder / (own[0] if own else _FORMS[form](clip)[0] + usual)
        for clip, own in zip(clips, by_form[form], strict=True)
    ]
