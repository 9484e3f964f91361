"""FMA's tables: tracks.csv with its three header lines, and genres.csv.

tracks.csv    album|artist|set|track, then the column, then "track_id"; one track a row (260 MB)
genres.csv    genre_id,#tracks,parent,title,top_level; titles hold "/" and commas
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.metadata.table_files import csv_rows
from ltu_jax.core.errors import UserError
from ltu_jax.core.text_files import TextError, open_text

TRACKS = "FMA's table of tracks, from fma_metadata.zip"


def tracks(
    path: Path, *, columns: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield ("path:line", track id, values of `columns`) a track, read in a stream.

    Raises:
        UserError: no file, other header lines, a column is missing, a row with too few fields, an
            id that is not a number.
    """
    try:
        with open_text(path, expected=TRACKS, newline="") as file:
            table = csv.reader(file)
            header = [next(table, []) for _ in range(3)]
            names = list(zip(header[0], header[1], strict=False))
            missing = ["/".join(column) for column in columns if column not in names]
            if missing or header[2][:1] != ["track_id"]:
                raise UserError(
                    f"{path} does not begin with FMA's three header lines "
                    f"({', '.join(missing) or 'track_id'} is missing): it should be {TRACKS}"
                )
            places = [names.index(column) for column in columns]
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


def genre_titles(path: Path) -> dict[int, str]:
    """Return genre id -> title.

    Raises:
        UserError: no file, a column is missing, an id that is no number, an empty title.
    """
    titles = {}
    for where, row in csv_rows(path, columns=("genre_id", "title"), expected="FMA's genres.csv"):
        if not row["genre_id"].isdecimal() or not row["title"].strip():
            raise UserError(f"{where}: genre_id {row['genre_id']!r}, title {row['title']!r}")
        titles[int(row["genre_id"])] = row["title"].strip()
    return titles


def genre_ids(text: str, where: str) -> tuple[int, ...]:
    """Return the ids of a field such as "[76, 103]".

    Raises:
        UserError: it is no list of numbers.
    """
    try:
        ids = json.loads(text)
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        raise UserError(f"{where}: track/genres is {text!r}: it should be a list of numbers")
    return tuple(ids)
