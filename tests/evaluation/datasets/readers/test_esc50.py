"""ESC-50 in a miniature of its repository: two classes, five folds, two clips of each."""

import miniatures
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import esc50

_HEADER = "filename,fold,target,category,esc10,src_file,take"


@pytest.fixture
def folder(tmp_path, tone):
    miniatures.esc50(tmp_path, tone)
    return tmp_path


def _edit(folder, change):
    table = folder / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    change(lines)
    table.write_text("\n".join(lines) + "\n")


def test_every_clip_of_all_folds_is_asked_in_file_order(folder):
    corpus = esc50.read(folder, split="all")
    assert len(corpus.items) == len(corpus.clips) == 20
    first, last = corpus.items[0], corpus.items[-1]
    assert (first.item_id, first.clip_id, first.row) == ("1-5180-A-0", "1-5180-A-0", "esc50")
    assert first.references == ("dog",)
    assert first.question == ""
    assert last.item_id == "5-55833-B-33"
    assert last.references == ("door wood creaks",)


def test_choices_are_the_categories_by_target_in_words(folder):
    corpus = esc50.read(folder, split="all")
    assert {item.choices for item in corpus.items} == {("dog", "door wood creaks")}


def test_folds_are_a_group(folder):
    corpus = esc50.read(folder, split="all")
    folds = [item.groups["fold"] for item in corpus.items]
    assert folds == [fold for fold in "12345" for _ in range(4)]


def test_takes_of_one_freesound_recording_are_a_cluster(folder):
    clips = esc50.read(folder, split="all").clips
    assert clips["1-5180-A-0"].cluster == clips["1-5180-B-0"].cluster == "5180"
    assert len({clip.cluster for clip in clips.values()}) == 10


def test_audio_lies_beside_the_table(folder):
    corpus = esc50.read(folder, split="all")
    assert all(clip.audio.parent == folder / "audio" for clip in corpus.clips.values())
    assert all(clip.audio.exists() for clip in corpus.clips.values())


def test_the_parent_of_the_unpacked_archive_is_enough(folder, tmp_path_factory):
    parent = tmp_path_factory.mktemp("download")
    folder.rename(parent / "ESC-50-master")
    assert len(esc50.read(parent, split="all").items) == 20


def test_a_clip_without_audio_stays_an_item(folder):
    (folder / "audio" / "1-5180-A-0.wav").unlink()
    corpus = esc50.read(folder, split="all")
    assert len(corpus.items) == 20
    assert not corpus.clips["1-5180-A-0"].audio.exists()


def test_a_missing_table_is_named(folder):
    (folder / "meta" / "esc50.csv").unlink()
    with pytest.raises(UserError, match=r"has no meta/esc50.csv .*give the unpacked folder"):
        esc50.read(folder, split="all")


def test_the_table_of_2015_lacks_the_target_column(folder):
    _edit(folder, lambda rows: rows.__setitem__(0, _HEADER.replace("target", "category_no")))
    with pytest.raises(UserError, match="has no column 'target'; it has .*'category_no'"):
        esc50.read(folder, split="all")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1-5180-A-0.wav,6,0,dog,True,5180,A", "fold is '6'"),
        ("1-5180-A-0.wav,1,x,dog,True,5180,A", "target is 'x'"),
        ("1-5180-A-0.wav,1,0,,True,5180,A", "an empty filename, category"),
        ("1-5180-B-0.wav,1,0,dog,True,5180,A", "'1-5180-B-0.wav' is listed twice"),
        ("1-5180-A-0.wav,1,0", "too few fields"),
    ],
)
def test_a_broken_row_is_named_by_line(folder, line, message):
    _edit(folder, lambda rows: rows.insert(3, line))
    _edit(folder, lambda rows: rows.pop(1))
    with pytest.raises(UserError, match=rf"esc50\.csv:3: .*{message}"):
        esc50.read(folder, split="all")


def test_a_target_with_two_categories_is_an_error(folder):
    _edit(folder, lambda rows: rows.__setitem__(2, rows[2].replace("dog", "cat")))
    with pytest.raises(UserError, match=r"esc50\.csv:3: target 0 is 'cat' here and 'dog' above"):
        esc50.read(folder, split="all")


def test_a_cut_off_table_is_noticed_by_class_sizes(folder):
    _edit(folder, lambda rows: rows.pop())
    with pytest.raises(UserError, match="10 clips of 'dog' but 9 of 'door_wood_creaks'"):
        esc50.read(folder, split="all")


def test_a_table_without_rows_is_an_error(folder):
    (folder / "meta" / "esc50.csv").write_text(_HEADER + "\n")
    with pytest.raises(UserError, match=r"esc50\.csv has no rows"):
        esc50.read(folder, split="all")


def test_folds_are_not_splits(folder):
    with pytest.raises(UserError, match="ESC-50 has no split 'fold1': use one of all"):
        esc50.read(folder, split="fold1")
