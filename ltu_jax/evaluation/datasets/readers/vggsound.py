"""VGGSound: 10 s of sound in 309 classes (Chen et al. 2020, hche11/VGGSound, CC BY 4.0).

Published are links, not audio: `vggsound.csv` without a header line, one clip a line,

    ---g-f_I2yQ,1,people marching,test        YouTube id, start in seconds, label, split

and clips that people cut from the videos carry the start in six digits, as those of the authors do
(`example_audio/FwVYUHKoLtQ_000034.wav`): `audio/---g-f_I2yQ_000001.wav`. Audio is looked for in
`audio/`, `video/` (the authors' archives of mp4) and `vggsound.csv`'s own folder, there also in a
folder named after the split.
"""

from pathlib import Path

from data_pipelines.metadata import video_tables
from data_pipelines.metadata.table_files import check_split, find, visible
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems

SPLITS = video_tables.VGGSOUND_SPLITS

_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mp4")


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split in the order of the csv; choices are all its labels, sorted.

    The cluster is the video. Clips whose video is gone stay in: their path is where a wav would be.

    Raises:
        UserError: unknown split; no csv; a line with too few or too many fields, a start that is
            not whole seconds, an unknown split or no label; a clip listed twice.
    """
    check_split(split, SPLITS, dataset="VGGSound")
    table = find(data, ("vggsound.csv", "data/vggsound.csv"), expected=video_tables.VGGSOUND)
    found = CollectedItems()
    rows = list(video_tables.vggsound(table, problems=found))
    choices = tuple(sorted({row.label for row in rows}))
    files = _files(data, split)
    for row in rows:
        if row.split != split:
            continue
        name = f"{row.video}_{row.start:06d}"
        clip = AudioClip(
            clip_id=name,
            audio=files.get(name, data / "audio" / f"{name}.wav"),
            cluster=row.video,
        )
        item = Item(
            item_id=name, clip_id=name, row="vggsound", references=(row.label,), choices=choices
        )
        with found.record():
            found.add(item, clip, where=row.where)
    return found.corpus(table, split=split)


def _files(data: Path, split: str) -> dict[str, Path]:
    """Return stem -> audio file; earlier folders and earlier endings win."""
    places = [data / "audio", data / "video", data]
    files: dict[str, Path] = {}
    for folder in [place for top in places for place in (top, top / split)]:
        if not folder.is_dir():
            continue
        here = [path for path in visible(folder) if path.suffix.lower() in _ENDINGS]
        for path in sorted(here, key=lambda path: _ENDINGS.index(path.suffix.lower())):
            files.setdefault(path.stem, path)
    return files
