"""LibriSpeech in a miniature of its archive: two speakers, three chapters, real id forms."""

import miniatures
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import librispeech


@pytest.fixture
def folder(tmp_path, tone):
    miniatures.librispeech(tmp_path, tone)
    return tmp_path


def _transcripts(folder, text):
    path = folder / "LibriSpeech/test-clean/121/121726/121-121726.trans.txt"
    path.write_text(text)


def test_utterances_come_by_speaker_chapter_and_number(folder):
    corpus = librispeech.read(folder, split="test-clean")
    assert [item.item_id for item in corpus.items] == [
        "121-121726-0000",
        "121-121726-0001",
        "1089-1346-0000",
        "1089-134686-0000",
        "1089-134686-0001",
    ]
    assert {item.row for item in corpus.items} == {"librispeech"}


def test_the_reference_is_the_transcript_as_published(folder):
    corpus = librispeech.read(folder, split="test-clean")
    assert corpus.items[1].references == ("HANGING A MAN'S COLLAR",)
    assert corpus.items[1].choices == ()


def test_whisper_writes_the_spoken_text_not_the_data(folder):
    clips = librispeech.read(folder, split="test-clean").clips
    assert all(clip.spoken_text is None for clip in clips.values())


def test_the_cluster_is_the_speaker(folder):
    clips = librispeech.read(folder, split="test-clean").clips
    assert clips["1089-1346-0000"].cluster == clips["1089-134686-0001"].cluster == "1089"
    assert clips["121-121726-0000"].cluster == "121"


@pytest.mark.parametrize("place", [".", "LibriSpeech", "LibriSpeech/test-clean"])
def test_parent_corpus_and_split_folder_are_all_accepted(folder, place):
    clips = librispeech.read(folder / place, split="test-clean").clips
    assert len(clips) == 5
    assert all(clip.audio.exists() for clip in clips.values())


def test_an_utterance_without_sound_stays_an_item(folder):
    sound = folder / "LibriSpeech/test-clean/121/121726/121-121726-0001.flac"
    sound.unlink()
    assert librispeech.read(folder, split="test-clean").clips["121-121726-0001"].audio == sound


def test_another_split_than_the_one_there_is_named(folder):
    with pytest.raises(UserError, match="has no test-other or LibriSpeech/test-other"):
        librispeech.read(folder, split="test-other")


def test_the_folder_of_another_split_is_not_taken(folder):
    with pytest.raises(UserError, match="test-clean has no test-other"):
        librispeech.read(folder / "LibriSpeech" / "test-clean", split="test-other")


def test_missing_transcripts_are_named(folder):
    (folder / "LibriSpeech/test-clean/121/121726/121-121726.trans.txt").unlink()
    with pytest.raises(UserError, match=r"121-121726\.trans\.txt does not exist"):
        librispeech.read(folder, split="test-clean")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("121-121726-0000 A\n121-121726-0001\n", r"trans\.txt:2: '121-121726-0001' has no words"),
        ("121-121726-0000 A\n121-121726-0000 B\n", r"trans\.txt:2: .* is listed twice"),
        ("121-121727-0000 A\n", r"trans\.txt:1: utterance '121-121727-0000' should be"),
        ("A POPULAR CONTRIVANCE\n", r"trans\.txt:1: utterance 'A' should be 121-121726-"),
        ("121-121726-0000 A\n", r"has no line for 121-121726-0001\.flac; .* cut off"),
    ],
)
def test_a_broken_transcript_is_named_by_line(folder, text, message):
    _transcripts(folder, text)
    with pytest.raises(UserError, match=message):
        librispeech.read(folder, split="test-clean")


def test_a_split_without_speakers_is_an_error(tmp_path):
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(UserError, match="test-clean has no numbered folders.* of its speakers"):
        librispeech.read(tmp_path, split="test-clean")
