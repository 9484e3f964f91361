"""FSD50K: Freesound clips with any of 200 labels (Fonseca et al. 2022, Zenodo 4060432, CC BY 4.0).

Published layout:

    FSD50K.ground_truth/vocabulary.csv    no header: index, label, AudioSet mid
    FSD50K.ground_truth/eval.csv          fname,labels,mids; labels with commas between, in quotes
    FSD50K.ground_truth/dev.csv           fname,labels,mids,split; split is train or val
    FSD50K.eval_audio/37199.wav           FSD50K.dev_audio/64760.wav

Labels are read with spaces for underscores ("Bass_guitar" -> "Bass guitar"), as the official
`eval_fsd50k.py` of LTU reads them.
"""

from pathlib import Path

from data_pipelines.metadata import freesound_tables
from data_pipelines.metadata.table_files import check_split, need
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems

SPLITS = ("eval", "val", "train")


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split with all their labels; choices are the vocabulary, in its order.

    Raises:
        UserError: unknown split; a file or column that is missing; a clip with no label, a label
            outside the vocabulary, the wrong split, or listed twice.
    """
    check_split(split, SPLITS, dataset="FSD50K")
    part = "eval" if split == "eval" else "dev"
    truth = need(data / "FSD50K.ground_truth", expected=freesound_tables.FSD50K)
    names = freesound_tables.fsd50k_vocabulary(truth / "vocabulary.csv")
    table = truth / f"{part}.csv"
    found = CollectedItems()
    for row in freesound_tables.fsd50k(table, names=names, problems=found):
        if row.split != split:
            continue
        audio = data / f"FSD50K.{part}_audio" / f"{row.name}.wav"
        clip = AudioClip(clip_id=row.name, audio=audio, cluster=row.name)
        item = Item(
            item_id=row.name,
            clip_id=row.name,
            row="fsd50k",
            references=row.labels,
            choices=tuple(names.values()),
        )
        with found.record():
            found.add(item, clip, where=row.where)
    return found.corpus(table, split=split)
