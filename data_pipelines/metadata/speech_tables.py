"""Tables of speech: IEMOCAP, LibriTTS, VoxCeleb2, CMU-MOSEI.

SessionN/dialog/EmoEvaluation/DIALOG.txt     times, turn, emotion and ratings, tabs between
SessionN/dialog/transcriptions/DIALOG.txt    turn [start-end]: text
vox2_meta.csv                    VoxCeleb2 ID, Gender, Set, ... set apart by tabs or commas
final_dataframe_extended.csv     VoxCeleb_ID, video_id, speaker_age, speaker_age_title_only
CMU_MOSEI_Labels.csv             s3prl's: file,index,start,end,label2a,label2b,label6,label7,split
label.csv                        MMSA's: video_id,clip_id,text,label,...,annotation,mode
speakers.tsv, SPEAKERS.txt       LibriTTS's readers and their genders
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import (
    RecordProblems,
    csv_rows,
    need,
    text_lines,
    visible,
)
from ltu_jax.core.errors import UserError, shorten

IEMOCAP_EMOTIONS = {
    "ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad",
}  # fmt: skip
_OTHER_EMOTIONS = {"fru", "sur", "fea", "dis", "oth", "xxx"}  # xxx: no emotion had a majority
_TURN = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(\S+)\t(\w+)\t\[[^\]]*\]\s*")
_TURN_TEXT = re.compile(r"(Ses\w+_[FM]\d+) \[[\d.]+-[\d.]+\]: ?(.*)")
GENDERS = {"f": "female", "m": "male"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerTurn:
    """A turn of IEMOCAP.

    Attributes:
        where: file and line.
        name: of the turn.
        speaker: session and letter of who speaks: the letter in the dialog's name is who wore the
            markers.
        emotion: code that most annotators chose; xxx where none had a majority.
    """

    where: str
    name: str
    speaker: str
    emotion: str

    @property
    def gender(self) -> str:
        """Gender of the speaker."""
        return GENDERS[self.speaker[-1].lower()]


def iemocap_label_files(session: Path) -> list[Path]:
    """Return the files of emotion labels of a session.

    Raises:
        UserError: no folder or no files; a dialog with audio that has no labels.
    """
    folder = need(
        session / "dialog" / "EmoEvaluation", expected="the emotion labels of its dialogs"
    )
    files = [path for path in visible(folder) if path.suffix == ".txt"]
    if not files:
        raise UserError(f"{folder} has no .txt files: it should have one for each dialog")
    audio = need(session / "sentences" / "wav", expected="a folder of turns for each dialog")
    unlabelled = {path.name for path in visible(audio) if path.is_dir()} - {f.stem for f in files}
    if unlabelled:
        raise UserError(f"{folder} has no labels of {shorten(sorted(unlabelled))}: copy it again")
    return files


def iemocap_turns(path: Path, *, session: str, problems: RecordProblems) -> Iterator[SpeakerTurn]:
    """Yield the turns of a dialog; `problems` takes lines that are broken.

    Raises:
        UserError: no file, or no turn in it.
    """
    seen = set()
    for where, line in text_lines(path, expected="the emotion labels of a dialog"):
        if not line.startswith("["):
            continue
        turn = None
        with problems.record():
            whole = _turn(line, where, dialog=path.stem, session=session)
            if whole.name in seen:
                raise UserError(f"{where}: turn {whole.name!r} is listed twice")
            seen.add(whole.name)
            turn = whole
        if turn is not None:
            yield turn
    if not seen and not problems.found:
        raise UserError(f"{path} has no turn: a turn's line starts with [start - end]")


def _turn(line: str, where: str, *, dialog: str, session: str) -> SpeakerTurn:
    match = _TURN.fullmatch(line)
    if match is None:
        raise UserError(
            f"{where} is {line[:60]!r}: a turn's line is [start - end], name, emotion and "
            "[ratings] with tabs between; the file may be cut off"
        )
    name, emotion = match.groups()
    letter = name.removeprefix(f"{dialog}_")[:1]
    if not name.startswith(f"{dialog}_") or letter not in ("F", "M"):
        raise UserError(f"{where}: turn {name!r} should be {dialog}_F or _M and a number")
    if emotion not in IEMOCAP_EMOTIONS and emotion not in _OTHER_EMOTIONS:
        raise UserError(
            f"{where}: unknown emotion {emotion!r}; known: "
            f"{', '.join(sorted(_OTHER_EMOTIONS | set(IEMOCAP_EMOTIONS)))}"
        )
    return SpeakerTurn(where=where, name=name, speaker=f"Ses0{session}{letter}", emotion=emotion)


def iemocap_texts(path: Path) -> dict[str, str]:
    """Return turn -> what is said, of a dialog's file of transcriptions.

    Lines without the name of a turn (breaths, remarks, `_MXX` and `_FXX`, which have no audio) are
    passed over.

    Raises:
        UserError: no file.
    """
    texts = {}
    for _, line in text_lines(path, expected="the transcriptions of a dialog"):
        match = _TURN_TEXT.fullmatch(line.strip())
        if match:
            texts[match[1]] = match[2].strip()
    return texts


def libritts_genders(path: Path) -> dict[str, str]:
    """Return reader -> female or male, of speakers.tsv or SPEAKERS.txt.

    Raises:
        UserError: no file; no reader; a line without a gender.
    """
    mark = "\t" if path.suffix == ".tsv" else "|"
    genders: dict[str, str] = {}
    for where, line in text_lines(path, expected="LibriTTS's list of readers"):
        fields = [field.strip() for field in line.split(mark)]
        if line.startswith(";") or fields[0].upper() == "READER":
            continue
        if len(fields) < 2 or fields[1].lower() not in GENDERS or not fields[0].isdecimal():
            raise UserError(f"{where}: {line[:60]!r} should be a reader's number and M or F")
        if genders.setdefault(fields[0], GENDERS[fields[1].lower()]) != GENDERS[fields[1].lower()]:
            raise UserError(f"{where}: reader {fields[0]} has another gender above")
    if not genders:
        raise UserError(f"{path} names no reader: copy it again")
    return genders


# --- VoxCeleb2 ------------------------------------------------------------------------------------

VOXCELEB_META_COLUMNS = ("VoxCeleb2 ID", "Gender", "Set")
_VOXCELEB1 = "id1"  # its speakers are id10001 to id11251, those of VoxCeleb2 id00012 to id09272


def voxceleb2_speakers(meta: Path) -> dict[str, tuple[str, str]]:
    """Return speaker -> (gender, dev or test).

    The copies of this table differ: fields end in a blank, then a tab or a comma; some begin with
    the speaker's name.

    Raises:
        UserError: no file, a column is missing, a line is broken, or a speaker is there twice.
    """
    lines = text_lines(meta, expected="the table of speakers of VoxCeleb2")
    _, header = next(lines, ("", ""))
    mark = "\t" if "\t" in header and "," not in header else ","
    columns = [name.strip() for name in header.split(mark)]
    lacking = [name for name in VOXCELEB_META_COLUMNS if name not in columns]
    if lacking:
        raise UserError(
            f"{meta} has no column {', '.join(map(repr, lacking))}; it has "
            f"{', '.join(map(repr, columns))}: is it the table of speakers of VoxCeleb2?"
        )
    speakers: dict[str, tuple[str, str]] = {}
    for where, line in lines:
        fields = [field.strip() for field in line.split(mark)]
        if len(fields) < len(columns):
            raise UserError(f"{where}: {len(fields)} fields, where the header has {len(columns)}")
        row = dict(zip(columns, fields, strict=False))  # some copies end their lines in a mark
        name, gender, part = (row[column] for column in VOXCELEB_META_COLUMNS)
        if gender not in GENDERS or part not in ("dev", "test"):
            raise UserError(
                f"{where}: gender {gender!r} and set {part!r}: they should be f or m, dev or test"
            )
        if name in speakers:
            raise UserError(f"{where}: speaker {name!r} is listed twice")
        speakers[name] = (GENDERS[gender], part)
    return speakers


def voxceleb2_ages(
    tables: Iterable[Path], speakers: Mapping[str, tuple[str, str]], *, column: str = "speaker_age"
) -> dict[tuple[str, str], str]:
    """Return (speaker, video) -> years in digits, where known; VoxCeleb1's are passed over.

    `column` is speaker_age, or speaker_age_title_only: the year stands in the title alone.

    Raises:
        UserError: no file, a column is missing, an age is no number, or tables contradict.
    """
    ages: dict[tuple[str, str], str] = {}
    columns = ("VoxCeleb_ID", "video_id", column)
    for table in tables:
        for where, row in csv_rows(table, columns=columns, expected="ages of VoxCeleb2 speakers"):
            speaker, video, age = (row[name] for name in columns)
            if not age or speaker.startswith(_VOXCELEB1):
                continue
            years = age.removesuffix(".0")
            if not years.isdecimal():
                raise UserError(f"{where}: {column} is {age!r}: it should be whole years")
            if not speaker or not video:
                raise UserError(f"{where}: an age without VoxCeleb_ID or video_id")
            if speaker not in speakers:
                raise UserError(f"{where}: speaker {speaker!r} is not in the table of speakers")
            if ages.setdefault((speaker, video), years) != years:
                raise UserError(
                    f"{where}: {speaker}/{video} is {years} here and {ages[speaker, video]} before"
                )
    return ages


# --- CMU-MOSEI ------------------------------------------------------------------------------------

MOSEI = "labels of CMU-MOSEI, s3prl's CMU_MOSEI_Labels.csv or MMSA's label.csv"
MOSEI_SIGNS = {"-1": "negative", "0": "neutral", "1": "positive"}
_S3PRL_SPLITS = {"0": "train", "1": "valid", "2": "test", "3": ""}
# In the order of its numbers; "happy" also stands where none of the six was heard.
MOSEI_EMOTIONS = ("happy", "sad", "angry", "surprised", "disgusted", "fearful")
_EMOTION_NUMBERS = {str(number): name for number, name in enumerate(MOSEI_EMOTIONS)}
_SCORES = {str(score): score for score in range(-3, 4)}
_MMSA = ("video_id", "clip_id", "annotation", "mode")
_MMSA_SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence of CMU-MOSEI.

    Attributes:
        where: file and line.
        video, index: which sentence of which video.
        start, end: seconds in the video; None for sentences that are files of their own.
        split: train, valid, test, or "" for none.
        sentiment: negative, neutral or positive.
        negative: whether the mean score is below 0 (label2a); None where the table has no such.
        emotion: one of `MOSEI_EMOTIONS`; "" where the table has none.
        score: whole score from -3 to 3 (label7); None where the table has none.
    """

    where: str
    video: str
    index: str
    start: float | None = None
    end: float | None = None
    split: str
    sentiment: str
    negative: bool | None = None
    emotion: str = ""
    score: int | None = None


def mosei_of_s3prl(path: Path, *, emotions: bool, problems: RecordProblems) -> Iterator[Sentence]:
    """Yield the sentences of CMU_MOSEI_Labels.csv; `problems` takes lines that are broken.

    `emotions` reads label2a, label6 and label7 as well.

    Raises:
        UserError: no file, or a column is missing.
    """
    columns = ("file", "index", "start", "end", "label2b", "split")
    columns += ("label2a", "label6", "label7") if emotions else ()
    for where, row in csv_rows(path, columns=columns, expected=MOSEI, problems=problems):
        sentence = None
        with problems.record():
            sentiment = one_of(row, "label2b", MOSEI_SIGNS, where)
            part = one_of(row, "split", _S3PRL_SPLITS, where)
            start, end = (number(row, name, where) for name in ("start", "end"))
            if end <= max(start, 0.0):
                raise UserError(
                    f"{where}: start is {start} s, end is {end} s: nothing lies between"
                )
            more = {}
            if emotions:
                more = {
                    "negative": one_of(row, "label2a", {"0": True, "1": False}, where),
                    "emotion": one_of(row, "label6", _EMOTION_NUMBERS, where),
                    "score": one_of(row, "label7", _SCORES, where),
                }
            sentence = Sentence(
                where=where,
                video=row["file"],
                index=row["index"],
                start=max(start, 0.0),
                end=end,
                split=part,
                sentiment=sentiment,
                **more,
            )
        if sentence is not None:
            yield sentence


def mosei_of_mmsa(path: Path, *, problems: RecordProblems) -> Iterator[Sentence]:
    """Yield the sentences of MMSA's label.csv; `problems` takes lines that are broken.

    Raises:
        UserError: no file, or a column is missing.
    """
    names = {name.title(): name for name in MOSEI_SIGNS.values()}
    for where, row in csv_rows(path, columns=_MMSA, expected=MOSEI, problems=problems):
        sentence = None
        with problems.record():
            sentence = Sentence(
                where=where,
                video=row["video_id"],
                index=row["clip_id"],
                split=one_of(row, "mode", {mode: mode for mode in _MMSA_SPLITS}, where),
                sentiment=one_of(row, "annotation", names, where),
            )
        if sentence is not None:
            yield sentence


def one_of(row: Mapping[str, str], name: str, values: Mapping[str, Any], where: str) -> Any:
    """Return what a field stands for.

    Raises:
        UserError: it is none of `values`.
    """
    if row[name] not in values:
        raise UserError(
            f"{where}: {name} is {row[name]!r}: it should be one of {', '.join(values)}"
        )
    return values[row[name]]


def number(row: Mapping[str, str], name: str, where: str) -> float:
    """Return a field as a finite number.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {row[name]!r}: it should be a number")
    return value
