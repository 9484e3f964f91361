"""FMA: music with its top genre (Defferrard et al. 2017, mdeff/fma; audio under artists' licences).

Published layout:

    fma_metadata/tracks.csv      two header lines (album|artist|set|track, then the column), a third
                                 that names the index "track_id", then one track a row
    fma_medium/000/000002.mp3    likewise fma_small, fma_large (30 s each) and fma_full

A split of this reader is the test split of one subset. `medium` is the default: the paper's genre
baselines are on it (baselines.ipynb). A subset holds the smaller ones. Tracks without a top genre,
which only `large` and `full` have, are not asked.
"""

from pathlib import Path

from data_pipelines.metadata import fma_tables
from data_pipelines.metadata.table_files import check_split, need
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems

SPLITS = ("test-medium", "test-small", "test-large", "test-full")

_HELD = {  # a subset -> the values of column set/subset that it holds
    "small": ("small",),
    "medium": ("small", "medium"),
    "large": ("small", "medium", "large"),
    "full": ("small", "medium", "large"),
}
_COLUMNS = (("artist", "id"), ("set", "split"), ("set", "subset"), ("track", "genre_top"))


def read(data: Path, *, split: str) -> Corpus:
    """Read the test tracks of a subset in the order of the table; the cluster is the artist.

    Choices are the top genres of the subset's tracks, in all of FMA's splits, sorted.

    Raises:
        UserError: unknown split; no table, or one with another header; a row with too few fields,
            an id that is not a number, an unknown subset or split; a track listed twice.
    """
    check_split(split, SPLITS, dataset="FMA")
    subset = split.removeprefix("test-")
    table = need(data / "fma_metadata" / "tracks.csv", expected=fma_tables.TRACKS)
    tracks, genres = [], set()
    for where, track, (artist, part, smallest, genre) in fma_tables.tracks(table, columns=_COLUMNS):
        if smallest not in _HELD["full"] or part not in ("training", "validation", "test"):
            raise UserError(f"{where}: subset is {smallest!r}, split is {part!r}: unknown to FMA")
        if smallest not in _HELD[subset] or not genre:
            continue
        genres.add(genre)
        if part == "test":
            tracks.append((where, track, artist, genre))
    choices = tuple(sorted(genres))
    found = CollectedItems()
    for where, track, artist, genre in tracks:
        name = f"{track:06d}"
        audio = data / f"fma_{subset}" / name[:3] / f"{name}.mp3"
        clip = AudioClip(clip_id=name, audio=audio, cluster=f"artist {artist}")
        item = Item(item_id=name, clip_id=name, row="fma", references=(genre,), choices=choices)
        found.add(item, clip, where=where)
    return found.corpus(table, split=split)
