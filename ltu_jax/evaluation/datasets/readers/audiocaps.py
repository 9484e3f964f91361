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

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from data_pipelines.metadata.table_files import (
    RecordProblems,
    check_split,
    find,
    visible,
)
from data_pipelines.metadata.video_tables import CaptionedVideo, audiocaps
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

SPLITS = ("test", "val")

_CAPTIONS = 5
_EXPECTED = "the folder of AudioCaps, with its csv files and the audio"
_SUFFIXES = (".wav", ".flac", ".mp3")


_FORMS: dict[str, Callable[[CaptionedVideo], Sequence[str]]] = {
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
    table = find(data, (f"{split}.csv", f"dataset/{split}.csv"), expected=_EXPECTED)
    places = (split, f"audio/{split}", "audio", f"wavs/{split}", "wavs")
    folder = find(data, places, expected=_EXPECTED)
    bad = RecordProblems()
    clips = audiocaps(table, problems=bad, captions=(_CAPTIONS,))
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


def _files(folder: Path, clips: Sequence[CaptionedVideo], table: Path) -> list[Path]:
    """Return the file of each clip; where it would be, for one that is missing."""
    present = {path.stem + path.suffix.lower() for path in visible(folder)}

    def names(clip: CaptionedVideo, form: str) -> list[str]:
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
