"""FMA: tracks.csv with its three header lines and 52 columns, mp3 in folders of three digits."""

import pytest
from miniatures import FMA_HEADER as HEADER
from miniatures import FMA_NAMES as NAMES
from miniatures import FMA_TRACKS as TRACKS
from miniatures import fma_table as write
from miniatures import fma_track as track

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.fma import read


@pytest.fixture
def data(tmp_path):
    return write(tmp_path, HEADER + TRACKS)


def test_the_header_is_that_of_the_release():
    assert len(NAMES) == 52  # usage.ipynb: tracks.shape == (106574, 52)


def test_test_tracks_of_the_medium_subset_with_those_of_the_small(data):
    corpus = read(data, split="test-medium")
    assert [item.item_id for item in corpus.items] == ["000002", "000140", "000666"]
    assert corpus.items[1] == Item(
        item_id="000140",
        clip_id="000140",
        row="fma",
        references=("Folk",),
        choices=("Folk", "Hip-Hop", "Old-Time / Historic", "Rock"),
    )
    assert corpus.clips["000140"] == AudioClip(
        clip_id="000140", audio=data / "fma_medium/000/000140.mp3", cluster="artist 54"
    )


def test_the_small_subset_has_its_own_genres(data):
    corpus = read(data, split="test-small")
    assert [item.label for item in corpus.items] == ["Hip-Hop", "Folk"]
    assert corpus.items[0].choices == ("Folk", "Hip-Hop")


def test_tracks_without_a_top_genre_are_not_asked(data):
    corpus = read(data, split="test-large")
    assert [item.item_id for item in corpus.items][-1] == "155320"
    assert "099134" not in corpus.clips
    assert corpus.clips["155320"].audio == data / "fma_large/155/155320.mp3"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (TRACKS[0], r"tracks.csv:19: '000002' is listed twice"),
        (TRACKS[0][:30], r"tracks.csv:19: 30 fields under 53 columns"),
        (["two", *TRACKS[0][1:]], r"tracks.csv:19: track_id is 'two'"),
        (track("8", artist="1", split="dev", subset="small", genre="Pop"), r"tracks.csv:19: .*dev"),
        (
            track("8", artist="1", split="test", subset="tiny", genre="Pop"),
            r"tracks.csv:19: .*tiny",
        ),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, message):
    # Line 19: 3 header lines, then 8 tracks of two lines each, for the break in the blurb.
    write(tmp_path, [*HEADER, *TRACKS, row])
    with pytest.raises(UserError, match=message):
        read(tmp_path, split="test-medium")


def test_a_table_without_the_three_header_lines_is_named(tmp_path):
    write(tmp_path, [["track_id", "genre_top"], ["2", "Hip-Hop"]])
    with pytest.raises(UserError, match=r"three header lines \(artist/id, set/split"):
        read(tmp_path, split="test-small")


def test_a_table_that_is_not_text_is_named(data):
    (data / "fma_metadata/tracks.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match=r"tracks.csv is damaged"):
        read(data, split="test-small")


def test_a_missing_table_and_a_plain_split_are_named(tmp_path):
    with pytest.raises(UserError, match=r"fma_metadata/tracks.csv does not exist"):
        read(tmp_path, split="test-small")
    with pytest.raises(UserError, match="no split 'test': use one of test-medium, test-small"):
        read(tmp_path, split="test")
