"""ESC-50: 2,000 clips of 5 s in 50 classes and 5 folds (Piczak 2015, karolpiczak/ESC-50).

Published layout, as the repository's archive unpacks it:

    meta/esc50.csv    filename,fold,target,category,esc10,src_file,take
    audio/1-100032-A-0.wav

LTU-AS is never trained on it, so all folds are asked; results are broken down by fold.
"""

from collections import Counter
from pathlib import Path

from data_pipelines.metadata.table_files import (
    RecordProblems,
    check_split,
    csv_rows,
    find,
)
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

SPLITS = ("all",)

_EXPECTED = "the unpacked folder of ESC-50, with meta/ and audio/"
_COLUMNS = ("filename", "fold", "target", "category", "src_file")


def read(data: Path, *, split: str) -> Corpus:
    """Read every clip of the table, in its order, with the 50 categories as choices.

    Underscores of a category are read as spaces. The cluster is the Freesound recording that the
    clip was cut from (`src_file`), of which up to eight clips were made.

    Raises:
        UserError: unknown split; no table; a row with a broken field, a file name twice, a target
            with two categories; classes of unequal size, which a cut-off table has.
    """
    check_split(split, SPLITS, dataset="ESC-50")
    table = find(data, ("meta/esc50.csv", "ESC-50-master/meta/esc50.csv"), expected=_EXPECTED)
    audio = table.parent.parent / "audio"
    rows, categories, bad = {}, {}, RecordProblems()
    for where, row in csv_rows(
        table, columns=_COLUMNS, expected="the table of ESC-50", problems=bad
    ):
        with bad.record():
            name, fold, target = row["filename"], row["fold"], row["target"]
            if name in rows:
                raise UserError(f"{where}: {name!r} is listed twice")
            if fold not in ("1", "2", "3", "4", "5"):
                raise UserError(f"{where}: fold is {fold!r}: it should be 1 to 5")
            if not target.isdecimal():
                raise UserError(
                    f"{where}: target is {target!r}: it should be the number of a class"
                )
            if not (row["category"] and row["src_file"] and name):
                raise UserError(f"{where}: an empty filename, category or src_file")
            if categories.setdefault(int(target), row["category"]) != row["category"]:
                raise UserError(
                    f"{where}: target {target} is {row['category']!r} here and "
                    f"{categories[int(target)]!r} above"
                )
            rows[name] = row
    if not bad.found:
        _balanced(Counter(row["category"] for row in rows.values()), table)
    choices = tuple(_words(categories[target]) for target in sorted(categories))
    items, clips = [], {}
    for name, row in rows.items():
        clip_id = Path(name).stem
        clips[clip_id] = AudioClip(clip_id=clip_id, audio=audio / name, cluster=row["src_file"])
        items.append(
            Item(
                item_id=clip_id,
                clip_id=clip_id,
                row="esc50",
                references=(_words(row["category"]),),
                choices=choices,
                groups={"fold": row["fold"]},
            )
        )
    return bad.none_in(Corpus(items=tuple(items), clips=clips), source=table)


def _balanced(sizes: Counter[str], table: Path) -> None:
    if not sizes:
        raise UserError(f"{table} has no rows: copy it again")
    (most, largest), (least, smallest) = sizes.most_common()[0], sizes.most_common()[-1]
    if largest != smallest:
        raise UserError(
            f"{table} lists {largest} clips of {most!r} but {smallest} of {least!r}; ESC-50 has 40 "
            "of each class: the table may be cut off, copy it again"
        )


def _words(category: str) -> str:
    return category.replace("_", " ")
