"""VGGSound: lines of the published csv, and clips named as people cut them."""

import pytest
from miniatures import VGGSOUND as LINES

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.vggsound import read

CHOICES = (
    "female speech, woman speaking",
    "people coughing",
    "people marching",
    "pigeon, dove cooing",
    "playing didgeridoo",
    "waterfall burbling",
)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "vggsound.csv").write_text(LINES)
    audio = tmp_path / "audio"
    audio.mkdir()
    (audio / "---g-f_I2yQ_000001.flac").touch()
    (audio / "-2Dm0VjW8oM_000001.mp3").touch()
    (audio / "-2Dm0VjW8oM_000001.wav").touch()
    return tmp_path


def test_clips_of_the_test_split_with_all_labels_as_choices(data):
    corpus = read(data, split="test")
    assert corpus.items[0] == Item(
        item_id="---g-f_I2yQ_000001",
        clip_id="---g-f_I2yQ_000001",
        row="vggsound",
        references=("people marching",),
        choices=CHOICES,
    )
    assert [item.label for item in corpus.items] == [
        "people marching",
        "people coughing",
        "pigeon, dove cooing",
    ]
    assert corpus.clips["---g-f_I2yQ_000001"] == AudioClip(
        clip_id="---g-f_I2yQ_000001",
        audio=data / "audio/---g-f_I2yQ_000001.flac",
        cluster="---g-f_I2yQ",
    )


def test_a_wav_goes_before_other_formats_and_a_missing_clip_stays(data):
    clips = read(data, split="test").clips
    assert clips["-2Dm0VjW8oM_000001"].audio == data / "audio/-2Dm0VjW8oM_000001.wav"
    assert clips["--U7joUcTCo_000000"].audio == data / "audio/--U7joUcTCo_000000.wav"


def test_audio_may_lie_in_a_folder_of_the_split_or_in_videos(data):
    (data / "video" / "train").mkdir(parents=True)
    (data / "video/train/-0dzLw4NyrM_000596.mp4").touch()
    (data / "--0PQM4-hqg_000030.wav").touch()
    clips = read(data, split="train").clips
    assert clips["-0dzLw4NyrM_000596"].audio == data / "video/train/-0dzLw4NyrM_000596.mp4"
    assert clips["--0PQM4-hqg_000030"].audio == data / "--0PQM4-hqg_000030.wav"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abc,1,dog", r"vggsound.csv:7: too few fields"),
        ("abc,1,bee, wasp,test", r"vggsound.csv:7: more fields than columns"),
        ("abc,1.5,dog,test", r"vggsound.csv:7: start is '1.5'"),
        ("abc,1,dog,dev", r"vggsound.csv:7: split is 'dev'"),
        ("abc,1,,test", r"vggsound.csv:7: no YouTube id or no label"),
        ("---g-f_I2yQ,1,dog,test", r"vggsound.csv:7: '---g-f_I2yQ_000001' is listed twice"),
    ],
)
def test_a_broken_line_is_named(data, line, message):
    (data / "vggsound.csv").write_text(LINES + line + "\n")
    with pytest.raises(UserError, match=message):
        read(data, split="test")


def test_a_missing_csv_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(UserError, match="has no vggsound.csv"):
        read(tmp_path, split="test")
    with pytest.raises(UserError, match="no split 'eval': use one of test, train"):
        read(tmp_path, split="eval")
