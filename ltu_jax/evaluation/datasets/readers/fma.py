"""FMA: music with its top genre (Defferrard et al. 2017, mdeff/fma; audio under artists' licences).

Published layout:

    fma_metadata/tracks.csv      two header lines (album|artist|set|track, then the column), a third
                                 that names the index "track_id", then one track a row
    fma_medium/000/000002.mp3    likewise fma_small, fma_large (30 s each) and fma_full

A split of this reader is the test split of one subset. `medium` is the default: the paper's genre
baselines are on it (baselines.ipynb). A subset holds the smaller ones. Tracks without a top genre,
which only `large` and `full` have, are not asked.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.core.text_files import TextError, open_text
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.evaluation.datasets.readers.table_files import check_split, need

SPLITS = ("test-medium", "test-small", "test-large", "test-full")

_WHAT = "FMA's table of tracks, from fma_metadata.zip"
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
    table = need(data / "fma_metadata" / "tracks.csv", what=_WHAT)
    tracks, genres = [], set()
    for where, track, (artist, part, smallest, genre) in _tracks(table):
        if smallest not in _HELD["full"] or part not in ("training", "validation", "test"):
            raise UserError(f"{where}: subset is {smallest!r}, split is {part!r}: unknown to FMA")
        if smallest not in _HELD[subset] or not genre:
            continue
        genres.add(genre)
        if part == "test":
            tracks.append((where, track, artist, genre))
    choices = tuple(sorted(genres))
    collected = CollectedItems()
    for where, track, artist, genre in tracks:
        name = f"{track:06d}"
        audio = data / f"fma_{subset}" / name[:3] / f"{name}.mp3"
        clip = AudioClip(clip_id=name, audio=audio, cluster=f"artist {artist}")
        item = Item(item_id=name, clip_id=name, row="fma", references=(genre,), choices=choices)
        collected.add(item, clip, where=where)
    return collected.corpus(table, split=split)


def _tracks(path: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield ("path:line", track id, values of `_COLUMNS`) a track, read in a stream (260 MB)."""
    try:
        with open_text(path, what=_WHAT, newline="") as file:
            table = csv.reader(file)
            header = [next(table, []) for _ in range(3)]
            names = list(zip(header[0], header[1], strict=False))
            missing = ["/".join(column) for column in _COLUMNS if column not in names]
            if missing or header[2][:1] != ["track_id"]:
                raise UserError(
                    f"{path} does not begin with FMA's three header lines "
                    f"({', '.join(missing) or 'track_id'} is missing): it should be {_WHAT}"
                )
            places = [names.index(column) for column in _COLUMNS]
            for row in table:
                where = f"{path}:{table.line_num}"
                if len(row) != len(names):
                    raise UserError(
                        f"{where}: {len(row)} fields under {len(names)} columns; the file may be "
                        "cut off"
                    )
                if not row[0].isdecimal():
                    raise UserError(f"{where}: track_id is {row[0]!r}: it should be a number")
                yield where, int(row[0]), tuple(row[place] for place in places)
    except (TextError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): copy it again") from None
