"""LibriSpeech: read English speech with transcripts (Panayotov et al. 2015, openslr.org/12).

Published layout, as its archives unpack:

    LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt
    LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac

A transcript line is the utterance's id, a space, and the words in capitals.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.metadata.table_files import (
    RecordProblems,
    check_split,
    find,
    need,
    text_lines,
    visible,
)
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

SPLITS = ("test-clean", "test-other", "dev-clean", "dev-other")


def read(data: Path, *, split: str) -> Corpus:
    """Read every utterance of the split, by speaker, chapter, number; the cluster is the speaker.

    Args:
        data: `LibriSpeech`, the folder it lies in, or the folder of the split itself.
        split: one of `SPLITS`.

    Raises:
        UserError: unknown split; its folder, a chapter's transcripts or a sound's line is missing;
            a line without words, of another chapter, or for an utterance that has one.
    """
    check_split(split, SPLITS, dataset="LibriSpeech")
    places = (split, f"LibriSpeech/{split}")
    root = (
        data if data.name == split and data.is_dir() else find(data, places, expected="LibriSpeech")
    )
    items, clips, bad = [], {}, RecordProblems()
    for speaker in _numbered(root, members="speakers"):
        for chapter in _numbered(speaker, members="chapters"):
            for utterance, words in _chapter(chapter, f"{speaker.name}-{chapter.name}", bad):
                clips[utterance] = AudioClip(
                    clip_id=utterance, audio=chapter / f"{utterance}.flac", cluster=speaker.name
                )
                items.append(
                    Item(
                        item_id=utterance,
                        clip_id=utterance,
                        row="librispeech",
                        references=(words,),
                    )
                )
    return bad.none_in(Corpus(items=tuple(items), clips=clips), source=root)


def _numbered(folder: Path, *, members: str) -> list[Path]:
    folders = [path for path in visible(folder) if path.is_dir() and path.name.isdecimal()]
    if not folders:
        raise UserError(
            f"{folder} has no numbered folders: it should have one for each of its {members}"
        )
    return sorted(folders, key=lambda path: int(path.name))


def _chapter(folder: Path, name: str, bad: RecordProblems) -> Iterator[tuple[str, str]]:
    """Yield (utterance, its words) in the order of the transcripts."""
    path = need(folder / f"{name}.trans.txt", expected=f"the transcripts of {folder}")
    listed = set()
    for where, line in text_lines(path, expected=f"the transcripts of {folder}"):
        read = False
        with bad.record():
            utterance, _, words = line.strip().partition(" ")
            number = utterance.removeprefix(f"{name}-")
            if number == utterance or not number.isdecimal():
                raise UserError(
                    f"{where}: utterance {utterance!r} should be {name}- and a number: a line is "
                    "an id, a space and the words"
                )
            if not words.strip():
                raise UserError(f"{where}: {utterance!r} has no words; the file may be cut off")
            if utterance in listed:
                raise UserError(f"{where}: {utterance!r} is listed twice")
            listed.add(utterance)
            read = True
        if read:
            yield utterance, words.strip()
    unlisted = [file.stem for file in visible(folder) if file.suffix.lower() == ".flac"]
    unlisted = [f"{stem}.flac" for stem in unlisted if stem not in listed]
    if unlisted and not bad.found:
        raise UserError(f"{path} has no line for {shorten(unlisted)}; the file may be cut off")
