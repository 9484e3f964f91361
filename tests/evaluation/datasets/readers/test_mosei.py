"""CMU-MOSEI: whole videos with s3prl's table, and cut sentences with MMSA's."""

import pytest
from miniatures import MOSEI as S3PRL

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.mosei import read

MMSA = """\
video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode
--qXJuDtHPw,5,"I see that a writer is somebody, who writes.",1.0,,,,Positive,valid
-3g5yACwYnA,10,Key is part of the people.,0.0,,,,Neutral,test
-3g5yACwYnA,13,They've been able to find it.,-0.6666667,,,,Negative,test
"""
CLASSES = ("negative", "neutral", "positive")


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "CMU_MOSEI_Labels.csv").write_text(S3PRL)
    (tmp_path / "Raw/Audio/Full/WAV_16000").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def sentences(tmp_path):
    (tmp_path / "label.csv").write_text(MMSA)
    (tmp_path / "Raw/-3g5yACwYnA").mkdir(parents=True)
    (tmp_path / "Raw/-3g5yACwYnA/10.mp4").touch()
    (tmp_path / "Raw/-3g5yACwYnA/13.mp4").touch()
    (tmp_path / "Raw/-3g5yACwYnA/13.wav").touch()
    return tmp_path


def test_sentences_are_parts_of_videos(videos):
    corpus = read(videos, split="test")
    assert corpus.items[0] == Item(
        item_id="-6rXp3zJ3kc_0",
        clip_id="-6rXp3zJ3kc_0",
        row="mosei",
        references=("neutral",),
        choices=CLASSES,
    )
    assert [item.label for item in corpus.items] == ["neutral", "negative", "positive"]
    assert corpus.clips["-6rXp3zJ3kc_1"] == AudioClip(
        clip_id="-6rXp3zJ3kc_1",
        audio=videos / "Raw/Audio/Full/WAV_16000/-6rXp3zJ3kc.wav",
        cluster="-6rXp3zJ3kc",
        start=45.428,
        end=58.151,
    )


def test_a_sentence_that_starts_before_its_video_starts_with_it(videos):
    clip = read(videos, split="test").clips["-ri04Z7vwnc_0"]
    assert (clip.start, clip.end) == (0.0, 3.23628117914)


def test_the_archive_may_have_been_unpacked_without_raw(videos):
    (videos / "Raw/Audio").rename(videos / "Audio")
    clip = read(videos, split="valid").clips["--qXJuDtHPw_0"]
    assert clip.audio == videos / "Audio/Full/WAV_16000/--qXJuDtHPw.wav"


def test_cut_sentences_of_mmsa(sentences):
    corpus = read(sentences, split="test")
    assert [item.references for item in corpus.items] == [("neutral",), ("negative",)]
    assert corpus.clips["-3g5yACwYnA_10"] == AudioClip(
        clip_id="-3g5yACwYnA_10",
        audio=sentences / "Raw/-3g5yACwYnA/10.mp4",
        cluster="-3g5yACwYnA",
    )
    assert corpus.clips["-3g5yACwYnA_13"].audio == sentences / "Raw/-3g5yACwYnA/13.wav"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "9,abc,0,1.0,2.0,1,2,0,1,2",
            r"Labels.csv:7: label2b is '2': it should be one of -1, 0, 1",
        ),
        ("9,abc,0,1.0,2.0,1,1,0,1,7", r"Labels.csv:7: split is '7'"),
        ("9,abc,0,one,2.0,1,1,0,1,2", r"Labels.csv:7: start is 'one'"),
        ("9,abc,0,1.0,nan,1,1,0,1,2", r"Labels.csv:7: end is 'nan'"),
        ("9,abc,0,2.0,1.0,1,1,0,1,2", r"Labels.csv:7: start is 2.0 s, end is 1.0 s"),
        ("9,abc,0,1.0", r"Labels.csv:7: too few fields"),
        ("9,-6rXp3zJ3kc,0,14.468,22.882,1,0,1,0,2", r"Labels.csv:7: '-6rXp3zJ3kc_0' is listed"),
    ],
)
def test_a_broken_line_is_named(videos, line, message):
    (videos / "CMU_MOSEI_Labels.csv").write_text(S3PRL + line + "\n")
    with pytest.raises(UserError, match=message):
        read(videos, split="test")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Neutral,test", "Neutral,dev", r"label.csv:3: mode is 'dev'"),
        ("Neutral,test", "Happy,test", r"label.csv:3: annotation is 'Happy'"),
        (",annotation,", ",notes,", r"label.csv has no column 'annotation'"),
    ],
)
def test_a_broken_table_of_mmsa_is_named(sentences, old, new, message):
    (sentences / "label.csv").write_text(MMSA.replace(old, new))
    with pytest.raises(UserError, match=message):
        read(sentences, split="test")


def test_missing_labels_are_named(tmp_path):
    with pytest.raises(UserError, match=r"has no CMU_MOSEI_Labels.csv or label.csv"):
        read(tmp_path, split="test")
