"""Tables of clips from Freesound and SoundBible: FSD50K's, Clotho's and WavCaps'.

FSD50K.ground_truth/{dev,eval}.csv           fname,labels,mids(,split)
FSD50K.ground_truth/vocabulary.csv           no header: index, label, mid
FSD50K.metadata/collection/collection_{dev,eval}.csv    the labels before parents were added
FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json       number -> title, tags, license, ...
clotho_captions_{split}.csv                  file_name,caption_1,...,caption_5
clotho_metadata_{split}.csv                  ISO-8859-1; keywords by ";", sound_id, license
fsd_final.json, sb_final.json, as_final.json (WavCaps)  {"data": [{"id", "caption", ...}]}
blacklist_exclude_*.json                     {"FreeSound": [id, ...], "AudioSet": [...]}
"""

import csv
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import (
    RecordProblems,
    csv_errors_named,
    csv_rows,
    json_file,
    need,
)
from ltu_jax.core.errors import UserError

FSD50K = "the ground truth of FSD50K, from FSD50K.ground_truth.zip"
CLOTHO = "Clotho's captions, with the audio folder of the same name beside it"
WAVCAPS = "a JSON file of WavCaps, as XinhaoMei/WavCaps has it"
_VOCABULARY = ("index", "label", "mid")
CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fsd50kClip:
    """A clip of FSD50K.

    Attributes:
        where: file and line.
        name: Freesound number.
        labels: its classes in words, with their parents.
        split: train, val or eval.
    """

    where: str
    name: str
    labels: tuple[str, ...]
    split: str


def fsd50k_vocabulary(path: Path) -> dict[str, str]:
    """Return label -> its words, in the order of the file.

    Raises:
        UserError: no file; a line out of order or without a label.
    """
    names: dict[str, str] = {}
    for where, row in csv_rows(path, columns=_VOCABULARY, expected=FSD50K, header=_VOCABULARY):
        label = row["label"]
        if row["index"] != str(len(names)) or not label or label in names:
            raise UserError(
                f"{where}: {row['index']!r}, {label!r}: it should be number {len(names)} and a new "
                "label; copy the vocabulary again"
            )
        names[label] = label.replace("_", " ")
    return names


def fsd50k(
    path: Path, *, names: Mapping[str, str], problems: RecordProblems
) -> Iterator[Fsd50kClip]:
    """Yield the clips of dev.csv or eval.csv; `problems` takes lines that are broken.

    Raises:
        UserError: no file, or a column is missing.
    """
    dev = path.stem == "dev"
    columns = ("fname", "labels", "split") if dev else ("fname", "labels")
    for where, row in csv_rows(path, columns=columns, expected=FSD50K, problems=problems):
        clip = None
        with problems.record():
            if dev and row["split"] not in ("train", "val"):
                raise UserError(f"{where}: split is {row['split']!r}: it should be train or val")
            labels = row["labels"].split(",")
            unknown = [label for label in labels if label not in names]
            if unknown:
                raise UserError(
                    f"{where}: label {unknown[0]!r} is not in {path.parent / 'vocabulary.csv'}: "
                    "take both files from the same release"
                )
            if not row["fname"].isdecimal():
                raise UserError(f"{where}: fname is {row['fname']!r}: it should be a Freesound "
                                "number")  # fmt: skip
            clip = Fsd50kClip(
                where=where,
                name=row["fname"],
                labels=tuple(dict.fromkeys(names[label] for label in labels)),
                split=row["split"] if dev else "eval",
            )
        if clip is not None:
            yield clip


def fsd50k_leaves(path: Path, *, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return Freesound number -> its labels without parents, of collection_{dev,eval}.csv.

    A label that the vocabulary lacks stands there too, as it was later left out.

    Raises:
        UserError: no file, or a column is missing.
    """
    leaves = {}
    for _, row in csv_rows(path, columns=("fname", "labels"), expected=FSD50K):
        labels = [label for label in row["labels"].split(",") if label]
        leaves[row["fname"]] = tuple(
            dict.fromkeys(names.get(label, label.replace("_", " ")) for label in labels)
        )
    return leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClothoClip:
    """A clip of Clotho: its file, and five captions."""

    where: str
    file: str
    captions: tuple[str, ...]


def clotho(path: Path, *, problems: RecordProblems) -> Iterator[ClothoClip]:
    """Yield the clips of a table of captions; `problems` takes lines that are broken.

    Raises:
        UserError: no file, or a column is missing.
    """
    columns = ("file_name", *CLOTHO_CAPTIONS)
    for where, row in csv_rows(path, columns=columns, expected=CLOTHO, problems=problems):
        clip = None
        with problems.record():
            empty = [column for column in columns if not row[column].strip()]
            if empty:
                raise UserError(f"{where}: {empty[0]} is empty; the file may be damaged")
            clip = ClothoClip(
                where=where,
                file=row["file_name"],
                captions=tuple(row[column].strip() for column in CLOTHO_CAPTIONS),
            )
        if clip is not None:
            yield clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClothoSound:
    """What clotho_metadata says of a file: keywords, Freesound number ("" unknown), licence."""

    keywords: tuple[str, ...]
    sound_id: str
    licence: str


def clotho_metadata(path: Path) -> dict[str, ClothoSound]:
    """Return file name -> what is known of the sound.

    Raises:
        UserError: no file, a column is missing, a row has too few fields or an open quote.
    """
    expected = "Clotho's metadata"
    need(path, expected=expected)
    sounds = {}
    with path.open(encoding="iso-8859-1", newline="") as file:
        table = csv.DictReader(file)
        while True:
            with csv_errors_named(path, table, expected=expected):
                row = next(table, None)
            if row is None:
                return sounds
            where = f"{path}:{table.line_num}"
            fields = [row.get(name) for name in ("file_name", "keywords", "sound_id", "license")]
            if any(field is None for field in fields):
                raise UserError(f"{where}: file_name, keywords, sound_id or license is missing")
            name, keywords, number, licence = (field.strip() for field in fields)
            sounds[name] = ClothoSound(
                keywords=tuple(word.strip() for word in keywords.split(";") if word.strip()),
                sound_id=number if number.isdecimal() else "",
                licence=licence,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WavCapsClip:
    """An entry of WavCaps.

    Attributes:
        where: file and number of the entry.
        name: its id: a number, or Y and a YouTube id with .wav.
        caption: a sentence that a language model made of the description.
        title, tags: as uploaded; "" and () where the file has none.
        duration: seconds of the whole sound.
        href: its page; "" where the file has none.
    """

    where: str
    name: str
    caption: str
    title: str
    tags: tuple[str, ...]
    duration: float
    href: str


def wavcaps(path: Path, *, problems: RecordProblems) -> Iterator[WavCapsClip]:
    """Yield the entries of a file; `problems` takes those that are broken or there twice.

    Raises:
        UserError: no file, or one of another form.
    """
    content = json_file(path, expected=WAVCAPS)
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list under 'data': it should be {WAVCAPS}")
    seen: set[str] = set()
    del content
    entries.reverse()  # given up one by one, so that their memory is
    number = 0
    while entries:
        entry, number = entries.pop(), number + 1
        where, clip = f"{path}, entry {number}", None
        with problems.record():
            whole = _wavcaps_clip(entry, where)
            if whole.name in seen:
                raise UserError(f"{where}: id {whole.name!r} is there twice")
            seen.add(whole.name)
            clip = whole
        if clip is not None:
            yield clip


def _wavcaps_clip(entry: Any, where: str) -> WavCapsClip:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {str(entry)[:60]!r}: it should be an object")
    name, caption = str(entry.get("id") or "").strip(), entry.get("caption")
    if not name or not isinstance(caption, str) or not caption.strip():
        raise UserError(f"{where}: id {name!r} and caption {caption!r}: both should be texts")
    duration = entry.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        raise UserError(f"{where}: duration is {duration!r}: it should be seconds")
    if not 0 < duration <= sys.float_info.max:
        raise UserError(f"{where}: duration is {duration!r}: it should be above 0")
    tags = entry.get("tags") or []
    tags = tags.split(",") if isinstance(tags, str) else tags
    if not isinstance(tags, list):
        raise UserError(f"{where}: tags is {str(tags)[:60]!r}: it should be a list of texts")
    return WavCapsClip(
        where=where,
        name=name,
        caption=caption.strip(),
        title=str(entry.get("title") or "").strip(),
        tags=tuple(str(tag).strip() for tag in tags if str(tag).strip()),
        duration=float(duration),
        href=str(entry.get("href") or ""),
    )


def wavcaps_blacklist(path: Path) -> dict[str, frozenset[str]]:
    """Return data set -> ids that a blacklist of WavCaps excludes, without endings.

    Raises:
        UserError: no file, or one of another form.
    """
    whole = json_file(path, expected="a blacklist of WavCaps")
    if not isinstance(whole, dict) or not all(isinstance(ids, list) for ids in whole.values()):
        raise UserError(f"{path} should have a list of ids under the name of each data set")
    return {
        name: frozenset(str(one).removesuffix(".wav").removesuffix(".flac") for one in ids)
        for name, ids in whole.items()
    }
