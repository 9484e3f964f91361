"""GTZAN: 1,000 excerpts of 30 s in 10 music genres (Tzanetakis and Cook 2002).

Published layouts: the original archive, and the copy that most people have.

    genres/blues/blues.00000.au
    genres_original/blues/blues.00000.wav    (also below Data/)

There is no table: a genre's files are numbered 00000 to 00099. `jazz.00054.wav` of the second is
known to be corrupt. All 1,000 are items here, so that a file that is deleted or does not decode
is named and counted, not dropped. Sturm (2013, arXiv:1306.1461) lists repetitions and wrong labels.
"""

from pathlib import Path

from data_pipelines.metadata.table_files import check_split, find, visible
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

SPLITS = ("all",)

# Folder -> the class as `eval_gtzan_genre.py` of LTU-AS spells it, lower case.
_GENRES = {
    "blues": "blues",
    "classical": "classical",
    "country": "country",
    "disco": "disco",
    "hiphop": "hip-hop",
    "jazz": "jazz",
    "metal": "metal",
    "pop": "pop",
    "reggae": "reggae",
    "rock": "rock",
}
_EXCERPTS = 100
_SUFFIXES = (".wav", ".au")  # a converted copy before its original
_PLACES = ("genres_original/blues", "Data/genres_original/blues", "genres/blues", "blues")
_EXPECTED = "the folder of GTZAN, with genres_original/ or genres/ in it"


def read(data: Path, *, split: str) -> Corpus:
    """Read the 1,000 excerpts by genre and number, each with the 10 genres as choices.

    The data does not say which song an excerpt was cut from, so each is its own cluster.

    Raises:
        UserError: unknown split; no folder of genres; a genre without a folder; a genre folder
            with no `<genre>.<5 digits>.wav` or `.au`.
    """
    check_split(split, SPLITS, dataset="GTZAN")
    root = find(data, _PLACES, expected=_EXPECTED).parent
    choices = tuple(_GENRES.values())
    items, clips = [], {}
    for genre, label in _GENRES.items():
        files = _files(root / genre, genre)
        for name, file in files.items():
            clips[name] = AudioClip(clip_id=name, audio=file, cluster=name)
            items.append(
                Item(item_id=name, clip_id=name, row="gtzan", references=(label,), choices=choices)
            )
    return Corpus(items=tuple(items), clips=clips)


def _files(folder: Path, genre: str) -> dict[str, Path]:
    """Return name -> where its file is; where it should be, for one that is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: it should hold the excerpts of genre {genre!r}")
    present = {path.stem + path.suffix.lower() for path in visible(folder)}
    names = [f"{genre}.{number:05d}" for number in range(_EXCERPTS)]
    by_suffix = {s: [name for name in names if name + s in present] for s in _SUFFIXES}
    if not any(by_suffix.values()):
        raise UserError(f"{folder} holds no {genre}.00000.wav or .au to {genre}.00099: {_EXPECTED}")
    usual = max(_SUFFIXES, key=lambda suffix: len(by_suffix[suffix]))
    return {
        name: folder / (name + next((s for s in _SUFFIXES if name + s in present), usual))
        for name in names
    }
