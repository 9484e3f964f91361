"""Clips of the sources of speech: IEMOCAP, LibriTTS, VoxCeleb2 and CMU-MOSEI.

Each reader takes the folder of a source's metadata and yields clips in a fixed order; `problems`
takes rows that are broken. VoxCeleb2's and LibriTTS's lists of utterances are their audio folders,
so these two need the audio in the same place.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.metadata import speech_tables
from data_pipelines.metadata.table_files import RecordProblems, text_lines, visible
from data_pipelines.open_asqa.folders import metadata_file
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError

TRAINED_SESSIONS = "1234"  # of IEMOCAP: session 5 is what is usually tested on
# A file of LibriTTS that has no sound.
_BROKEN_UTTERANCES = frozenset({"1092_134562_000013_000004"})
_UTTERANCE = re.compile(r"(\d+)_(\d+)_\d{6}_\d{6}")
_SOUNDS = (".wav", ".flac", ".m4a")


def iemocap(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the turns of sessions 1 to 4 that are angry, happy, excited, neutral or sad."""
    roots = [folder, folder / "IEMOCAP_full_release"]
    root = next((path for path in roots if (path / "Session1").is_dir()), None)
    if root is None:
        raise UserError(f"{folder} has no Session1: give IEMOCAP_full_release as `metadata`")
    for session in TRAINED_SESSIONS:
        for labels in speech_tables.iemocap_label_files(root / f"Session{session}"):
            spoken = root / f"Session{session}" / "dialog" / "transcriptions" / labels.name
            texts = speech_tables.iemocap_texts(spoken)
            for turn in speech_tables.iemocap_turns(labels, session=session, problems=problems):
                if turn.emotion not in speech_tables.IEMOCAP_EMOTIONS:
                    continue
                yield SourceClip(
                    source="iemocap",
                    clip_id=turn.name,
                    dataset="iemocap_tr",
                    recordings=(f"iemocap:Ses0{session}",),
                    files=(turn.name,),
                    where=turn.where,
                    licence="signed form of USC: rows with text may not be passed on",
                    gold_text=texts.get(turn.name, ""),
                    gender=turn.gender,
                    emotion=speech_tables.IEMOCAP_EMOTIONS[turn.emotion],
                )


def libritts(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the utterances of the training and dev parts that have text.

    Parts `test-*` are left out: their readers are those of LibriSpeech's tests.
    """
    listed = metadata_file(folder, "speakers.tsv", optional=True)
    genders = speech_tables.libritts_genders(listed or metadata_file(folder, "SPEAKERS.txt"))
    texts = sorted(
        path
        for path in folder.rglob("*.normalized.txt")
        if not path.name.startswith(".") and not _part(path, folder).startswith("test")
    )
    for path in texts:
        name = path.name.removesuffix(".normalized.txt")
        clip = None
        with problems.record():
            match = _UTTERANCE.fullmatch(name)
            if match is None:
                raise UserError(f"{path}: {name!r} should be reader_chapter_paragraph_utterance")
            if match[1] not in genders:
                raise UserError(f"{path}: reader {match[1]} is not in the list of readers")
            lines = [line for _, line in text_lines(path, expected="the text of an utterance")]
            if name in _BROKEN_UTTERANCES or not lines:
                raise UserError(f"{path}: the utterance has no sound or no text")
            clip = SourceClip(
                source="libritts",
                clip_id=name,
                dataset="libritts_tr",
                recordings=(f"reader:{match[1]}",),
                files=(name,),
                where=f"{path}:1",
                licence="CC BY 4.0",
                gold_text=" ".join(line.strip() for line in lines),
                gender=genders[match[1]],
            )
        if clip is not None:
            yield clip


def _part(path: Path, folder: Path) -> str:
    """Return the part of LibriTTS that a file lies in, such as train-clean-100; "" for none."""
    names = path.relative_to(folder).parts
    return next((name for name in names if name.startswith(("train", "dev", "test"))), "")


def voxceleb2(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the dev utterances whose video names its year in the title, so that the age is known.

    Speakers of the age test's list are left out altogether.
    """
    speakers = speech_tables.voxceleb2_speakers(metadata_file(folder, "vox2_meta.csv"))
    table = metadata_file(folder, "final_dataframe_extended.csv")
    ages = speech_tables.voxceleb2_ages([table], speakers, column="speaker_age_title_only")
    tested = metadata_file(folder, "age-test.txt")
    held_out = {speaker for speaker, _ in speech_tables.voxceleb2_ages([tested], speakers)}
    root = next((p for p in (folder / "dev" / "aac", folder / "dev" / "wav") if p.is_dir()), None)
    if root is None:
        raise UserError(f"{folder} has no dev/aac or dev/wav: VoxCeleb2's utterances are its files")
    for (speaker, video), age in sorted(ages.items()):
        gender, part = speakers[speaker]
        if part != "dev" or speaker in held_out:
            continue
        place = root / speaker / video
        with problems.record():
            if not place.is_dir():
                raise UserError(f"{table}: {speaker}/{video} has no folder {place}")
        for file in visible(place) if place.is_dir() else ():
            if file.suffix.lower() not in _SOUNDS:
                continue
            yield SourceClip(
                source="voxceleb2",
                clip_id=f"{speaker}/{video}/{file.stem}",
                dataset="voxceleb_tr",
                recordings=(f"speaker:{speaker}", f"youtube:{video}"),
                files=(f"{speaker}/{video}/{file.stem}",),
                where=str(table),
                licence="CC BY 4.0 (metadata); audio of YouTube videos",
                gender=gender,
                age=int(age),
            )


def mosei(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the training and validation sentences of CMU-MOSEI, by s3prl's table.

    Its table calls sentences "happy" in which none of the six emotions was heard; the score tells
    no more. It has no genders.
    """
    table = metadata_file(folder, "CMU_MOSEI_Labels.csv")
    for sentence in speech_tables.mosei_of_s3prl(table, emotions=True, problems=problems):
        if sentence.split not in ("train", "valid"):
            continue
        yield SourceClip(
            source="mosei",
            clip_id=f"{sentence.video}_{sentence.index}",
            dataset="mosei_tr" if sentence.split == "train" else "mosei_dev",
            recordings=(f"youtube:{sentence.video}",),
            files=(f"{sentence.video}_{sentence.index}", sentence.video),
            start=sentence.start,
            end=sentence.end,
            where=sentence.where,
            licence="research use; audio of YouTube videos",
            emotion=sentence.emotion,
            score=sentence.score,
            negative=sentence.negative,
        )
