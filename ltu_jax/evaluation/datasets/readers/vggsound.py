"""VGGSound: 10 s of sound in 309 classes (Chen et al. 2020, hche11/VGGSound, CC BY 4.0).

Published are links, not audio: `vggsound.csv` without a header line, one clip a line,

    ---g-f_I2yQ,1,people marching,test        YouTube id, start in seconds, label, split

and clips that people cut from the videos carry the start in six digits, as those of the authors do
(`example_audio/FwVYUHKoLtQ_000034.wav`): `audio/---g-f_I2yQ_000001.wav`. Audio is looked for in
`audio/`, `video/` (the authors' archives of mp4) and `vggsound.csv`'s own folder, there also in a
folder named after the split.
"""

from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.evaluation.datasets.readers.table_files import check_split, csv_rows, find, visible

SPLITS = ("test", "train")

_WHAT = "VGGSound's list of clips: YouTube id, start seconds, label, split"
_COLUMNS = ("youtube id", "start", "label", "split")
_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mp4")


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split in the order of the csv; choices are all its labels, sorted.

    The cluster is the video. Clips whose video is gone stay in: their path is where a wav would be.

    Raises:
        UserError: unknown split; no csv; a line with too few or too many fields, a start that is
            not whole seconds, an unknown split or no label; a clip listed twice.
    """
    check_split(split, SPLITS, dataset="VGGSound")
    table = find(data, ("vggsound.csv", "data/vggsound.csv"), what=_WHAT)
    collected, rows = CollectedItems(), []
    for where, row in csv_rows(
        table, columns=_COLUMNS, what=_WHAT, header=_COLUMNS, problems=collected
    ):
        with collected.record():
            rows.append((where, *_checked(row, where)))
    choices = tuple(sorted({label for _, _, _, label, _ in rows}))
    files = _files(data, split)
    for where, video, start, label, part in rows:
        if part != split:
            continue
        name = f"{video}_{start:06d}"
        clip = AudioClip(
            clip_id=name,
            audio=files.get(name, data / "audio" / f"{name}.wav"),
            cluster=video,
        )
        item = Item(
            item_id=name, clip_id=name, row="vggsound", references=(label,), choices=choices
        )
        with collected.record():
            collected.add(item, clip, where=where)
    return collected.corpus(table, split=split)


def _checked(row: dict[str, str], where: str) -> tuple[str, int, str, str]:
    video, start, label, split = (row[name] for name in _COLUMNS)
    if split not in SPLITS:
        raise UserError(f"{where}: split is {split!r}: it should be test or train")
    if not start.isdecimal():
        raise UserError(f"{where}: start is {start!r}: it should be whole seconds")
    if not video or not label.strip():
        raise UserError(f"{where}: no YouTube id or no label")
    return video, int(start), label, split


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
