"""Clotho: 15 to 30 s of Freesound sound with five captions (Drossos et al. 2020, Zenodo 4783391).

Published layout of version 2.1, as its archives unpack:

    clotho_captions_evaluation.csv    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
    evaluation/Santa Motor.wav        likewise validation/, development/

`aac-datasets` and the DCASE baselines keep the tables in `clotho_csv_files/` and the audio in
`clotho_audio_files/`, which is read as well.
"""

from pathlib import Path

from data_pipelines.metadata import freesound_tables
from data_pipelines.metadata.table_files import check_split, find
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems

SPLITS = ("evaluation", "validation", "development")


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split in the order of the csv, each with its five captions.

    Raises:
        UserError: unknown split; no csv or a column missing; an empty caption or file name; a file
            listed twice.
    """
    check_split(split, SPLITS, dataset="Clotho")
    name = f"clotho_captions_{split}.csv"
    table = find(data, (name, f"clotho_csv_files/{name}"), expected=freesound_tables.CLOTHO)
    audio = data / split
    if not audio.exists() and (data / "clotho_audio_files").exists():
        audio = data / "clotho_audio_files" / split
    found = CollectedItems()
    for row in freesound_tables.clotho(table, problems=found):
        clip = AudioClip(clip_id=row.file, audio=audio / row.file, cluster=row.file)
        item = Item(item_id=row.file, clip_id=row.file, row="clotho", references=row.captions)
        with found.record():
            found.add(item, clip, where=row.where)
    return found.corpus(table, split=split)
