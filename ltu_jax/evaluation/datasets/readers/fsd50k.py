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

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.evaluation.datasets.readers.table_files import check_split, csv_rows, need

SPLITS = ("eval", "val", "train")

_WHAT = "the ground truth of FSD50K, from FSD50K.ground_truth.zip"
_VOCABULARY = ("index", "label", "mid")


def read(data: Path, *, split: str) -> Corpus:
    """Read the clips of one split with all their labels; choices are the vocabulary, in its order.

    Raises:
        UserError: unknown split; a file or column that is missing; a clip with no label, a label
            outside the vocabulary, the wrong split, or listed twice.
    """
    check_split(split, SPLITS, dataset="FSD50K")
    part = "eval" if split == "eval" else "dev"
    truth = need(data / "FSD50K.ground_truth", what=_WHAT)
    names = _vocabulary(truth / "vocabulary.csv")
    table = truth / f"{part}.csv"
    columns = ("fname", "labels") if part == "eval" else ("fname", "labels", "split")
    choices = tuple(names.values())
    collected = CollectedItems()
    for where, row in csv_rows(table, columns=columns, what=_WHAT, problems=collected):
        with collected.record():
            if part == "dev" and row["split"] not in SPLITS[1:]:
                raise UserError(f"{where}: split is {row['split']!r}: it should be train or val")
            labels = row["labels"].split(",")
            unknown = [label for label in labels if label not in names]
            if unknown:
                raise UserError(
                    f"{where}: label {unknown[0]!r} is not in {truth / 'vocabulary.csv'}: "
                    "take both files from the same release"
                )
            name = row["fname"]
            if not name.isdecimal():
                raise UserError(f"{where}: fname is {name!r}: it should be a Freesound number")
            if part == "dev" and row["split"] != split:
                continue
            audio = data / f"FSD50K.{part}_audio" / f"{name}.wav"
            clip = AudioClip(clip_id=name, audio=audio, cluster=name)
            item = Item(
                item_id=name,
                clip_id=name,
                row="fsd50k",
                references=tuple(dict.fromkeys(names[label] for label in labels)),
                choices=choices,
            )
            collected.add(item, clip, where=where)
    return collected.corpus(table, split=split)


def _vocabulary(path: Path) -> dict[str, str]:
    """Return label -> its words, in the order of the file."""
    names: dict[str, str] = {}
    for where, row in csv_rows(path, columns=_VOCABULARY, what=_WHAT, header=_VOCABULARY):
        label = row["label"]
        if row["index"] != str(len(names)) or not label or label in names:
            raise UserError(
                f"{where}: {row['index']!r}, {label!r}: it should be number {len(names)} and a new "
                "label; copy the vocabulary again"
            )
        names[label] = label.replace("_", " ")
    return names
