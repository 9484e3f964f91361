"""Clotho: 15 to 30 s of Freesound sound with five captions (Drossos et al. 2020, Zenodo 4783391).

Published layout of version 2.1, as its archives unpack:

    clotho_captions_evaluation.csv    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
    evaluation/Santa Motor.wav        likewise validation/, development/

`aac-datasets` and the DCASE baselines keep the tables in `clotho_csv_files/` and the audio in
`clotho_audio_files/`, which is read as well.
"""

from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.evaluation.datasets.readers.table_files import check_split, csv_rows, find

SPLITS = ("evaluation", "validation", "development")

_WHAT = "Clotho's captions, with the audio folder of the same name beside it"
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split in the order of the csv, each with its five captions.

    Raises:
        UserError: unknown split; no csv or a column missing; an empty caption or file name; a file
            listed twice.
    """
    check_split(split, SPLITS, dataset="Clotho")
    name = f"clotho_captions_{split}.csv"
    table = find(data, (name, f"clotho_csv_files/{name}"), what=_WHAT)
    audio = data / split
    if not audio.exists() and (data / "clotho_audio_files").exists():
        audio = data / "clotho_audio_files" / split
    collected = CollectedItems()
    for where, row in csv_rows(
        table, columns=("file_name", *_CAPTIONS), what=_WHAT, problems=collected
    ):
        with collected.record():
            file = row["file_name"]
            empty = [column for column in ("file_name", *_CAPTIONS) if not row[column].strip()]
            if empty:
                raise UserError(f"{where}: {empty[0]} is empty; the file may be damaged")
            clip = AudioClip(clip_id=file, audio=audio / file, cluster=file)
            item = Item(
                item_id=file,
                clip_id=file,
                row="clotho",
                references=tuple(row[column].strip() for column in _CAPTIONS),
            )
            collected.add(item, clip, where=where)
    return collected.corpus(table, split=split)
