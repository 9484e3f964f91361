"""CMU-MOSEI: sentiment of sentences in YouTube monologues (Bagher Zadeh et al. 2018).

Two sets of files are in use, told apart by their table of labels:

    CMU_MOSEI_Labels.csv                 s3prl's export of the SDK's CMU_MOSEI_Labels.csd: index
                                         column, file,index,start,end,label2a,label2b,...,split
                                         (0 training, 1 validation, 2 test, 3 in none)
    Raw/Audio/Full/WAV_16000/<file>.wav  whole videos of CMU_MOSEI.zip; "Raw/" may be left out

    label.csv                            MMSA's: video_id,clip_id,text,label,...,annotation,mode
    Raw/<video_id>/<clip_id>.mp4         sentences, cut; a .wav of the same name goes before

Classes are negative, neutral and positive: the sign of the mean score from -3 to 3, which is
`label2b` of the one and `annotation` of the other. LTU-AS asks MOSEI for the emotion, but neither
table gives one class of it: the SDK has six strengths, and s3prl's `label6` calls silence of all
six "happy". `spoken_text` is left to Whisper, as in LTU-AS.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.evaluation.datasets.readers.table_files import check_split, csv_rows, find
from ltu_jax.preprocessing.names import find_audio

SPLITS = ("test", "valid", "train")
CLASSES = ("negative", "neutral", "positive")

_WHAT = "labels of CMU-MOSEI, s3prl's CMU_MOSEI_Labels.csv or MMSA's label.csv"
_S3PRL = ("file", "index", "start", "end", "label2b", "split")
_SIGNS = {"-1": "negative", "0": "neutral", "1": "positive"}
_NUMBERS = {"0": "train", "1": "valid", "2": "test", "3": ""}
_MMSA = ("video_id", "clip_id", "annotation", "mode")
_MODES = ("train", "valid", "test")


def read(data: Path, *, split: str) -> Corpus:
    """Read the sentences of one split in the order of the table; the cluster is the video.

    Sentences that the labels let start a little before their video start with it.

    Raises:
        UserError: unknown split; no table or a column missing; a label, split or time that cannot
            be; a sentence listed twice.
    """
    check_split(split, SPLITS, dataset="CMU-MOSEI")
    table = find(data, ("CMU_MOSEI_Labels.csv", "label.csv"), what=_WHAT)
    rows = _sentences_of_videos if table.name == "CMU_MOSEI_Labels.csv" else _cut_sentences
    collected = CollectedItems()
    for where, part, sentiment, clip in rows(data, table, collected):
        if part != split:
            continue
        item = Item(
            item_id=clip.clip_id,
            clip_id=clip.clip_id,
            row="mosei",
            references=(sentiment,),
            choices=CLASSES,
        )
        with collected.record():
            collected.add(item, clip, where=where)
    return collected.corpus(table, split=split)


def _sentences_of_videos(
    data: Path, table: Path, collected: CollectedItems
) -> Iterator[tuple[str, str, str, AudioClip]]:
    folder = data / "Audio"
    folder = (folder if folder.exists() else data / "Raw" / "Audio") / "Full" / "WAV_16000"
    for where, row in csv_rows(table, columns=_S3PRL, what=_WHAT, problems=collected):
        clip = None
        with collected.record():
            sentiment = _one_of(row, "label2b", _SIGNS, where)
            part = _one_of(row, "split", _NUMBERS, where)
            start, end = (_number(row, name, where) for name in ("start", "end"))
            if end <= max(start, 0.0):
                raise UserError(
                    f"{where}: start is {start} s, end is {end} s: nothing lies between"
                )
            clip = AudioClip(
                clip_id=f"{row['file']}_{row['index']}",
                audio=folder / f"{row['file']}.wav",
                cluster=row["file"],
                start=max(start, 0.0),
                end=end,
            )
        if clip is not None:
            yield where, part, sentiment, clip


def _cut_sentences(
    data: Path, table: Path, collected: CollectedItems
) -> Iterator[tuple[str, str, str, AudioClip]]:
    for where, row in csv_rows(table, columns=_MMSA, what=_WHAT, problems=collected):
        clip = None
        with collected.record():
            part = _one_of(row, "mode", {mode: mode for mode in _MODES}, where)
            sentiment = _one_of(row, "annotation", {name.title(): name for name in CLASSES}, where)
            stem = data / "Raw" / row["video_id"] / row["clip_id"]
            wav, mp4 = (stem.with_name(stem.name + ending) for ending in (".wav", ".mp4"))
            clip = AudioClip(
                clip_id=f"{row['video_id']}_{row['clip_id']}",
                audio=find_audio(wav) or mp4,
                cluster=row["video_id"],
            )
        if clip is not None:
            yield where, part, sentiment, clip


def _one_of(row: dict[str, str], name: str, values: dict[str, str], where: str) -> str:
    if row[name] not in values:
        raise UserError(
            f"{where}: {name} is {row[name]!r}: it should be one of {', '.join(values)}"
        )
    return values[row[name]]


def _number(row: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {row[name]!r}: it should be a number")
    return value
