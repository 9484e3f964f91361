"""AudioCaps with its real header and column order, and audio named as its users name it."""

import miniatures
import pytest
from miniatures import AUDIOCAPS as _CLIPS
from miniatures import AUDIOCAPS_HEADER as _HEADER

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import audiocaps


def _captions(name):
    return tuple(f"A sound of {name}, take {number}" for number in range(5))


def _caption_ids(name):
    first = 103_000 + 10 * list(_CLIPS).index(name)
    return [str(first + number) for number in range(5)]


@pytest.fixture
def folder(tmp_path):
    miniatures.audiocaps(tmp_path, lambda path, **_: path)  # the table alone
    return tmp_path


def _render(folder, tone, name_of, *, names=tuple(_CLIPS), place="test"):
    for name in names:
        tone(folder / place / name_of(name), rate=22_050)


def _edit(folder, change):
    lines = (folder / "test.csv").read_text().splitlines()
    change(lines)
    (folder / "test.csv").write_text("\n".join(lines) + "\n")


def test_a_clip_is_one_item_with_its_five_captions(folder, tone):
    _render(folder, tone, "{}.wav".format)
    corpus = audiocaps.read(folder, split="test")
    assert len(corpus.items) == len(corpus.clips) == 4
    for item in corpus.items:
        assert sorted(item.references) == sorted(_captions(item.clip_id))
        assert (item.item_id, item.row, item.choices) == (item.clip_id, "audiocaps", ())
    assert corpus.items[0].clip_id == "7fmOlUlwoNg"


def test_captions_stay_in_the_order_of_the_table(folder, tone):
    _render(folder, tone, "{}.wav".format)
    lines = (folder / "test.csv").read_text().splitlines()
    own = tuple(line.split(",", 3)[3].strip('"') for line in lines if "GOD8Bt5LfDE" in line)
    item = next(i for i in audiocaps.read(folder, split="test").items if i.clip_id == "GOD8Bt5LfDE")
    assert item.references == own


@pytest.mark.parametrize(
    "form",
    [
        lambda name: f"{name}.wav",
        lambda name: f"Y{name}.wav",
        lambda name: f"{name}_{_CLIPS[name]}.flac",
        lambda name: f"Y{name}_{_CLIPS[name]}.wav",
        lambda name: f"{_caption_ids(name)[3]}.mp3",
    ],
)
def test_each_common_form_of_file_name_is_found(folder, tone, form):
    _render(folder, tone, form)
    corpus = audiocaps.read(folder, split="test")
    assert {name: clip.audio for name, clip in corpus.clips.items()} == {
        name: folder / "test" / form(name) for name in _CLIPS
    }


@pytest.mark.parametrize("place", ["test", "audio/test", "audio", "wavs/test", "wavs"])
def test_each_common_audio_folder_is_found(folder, tone, place):
    _render(folder, tone, "{}.wav".format, place=place)
    clips = audiocaps.read(folder, split="test").clips
    assert all(clip.audio.exists() for clip in clips.values())


def test_the_table_of_a_cloned_repository_is_found(folder, tone):
    (folder / "dataset").mkdir()
    (folder / "test.csv").rename(folder / "dataset" / "test.csv")
    _render(folder, tone, "{}.wav".format)
    assert len(audiocaps.read(folder, split="test").items) == 4


def test_the_val_table_is_a_split(folder, tone):
    (folder / "test.csv").rename(folder / "val.csv")
    _render(folder, tone, "{}.wav".format, place="val")
    assert len(audiocaps.read(folder, split="val").items) == 4


def test_a_clip_lost_by_youtube_is_named_where_it_would_be(folder, tone):
    _render(folder, tone, "Y{}.flac".format, names=["7fmOlUlwoNg", "GOD8Bt5LfDE"])
    clips = audiocaps.read(folder, split="test").clips
    assert len(clips) == 4
    assert clips["-NsC63dA01g"].audio == folder / "test" / "Y-NsC63dA01g.flac"
    assert not clips["-NsC63dA01g"].audio.exists()


def test_a_lost_clip_of_caption_ids_is_named_by_its_first(folder, tone):
    _render(folder, tone, lambda name: f"{_caption_ids(name)[0]}.wav", names=["7fmOlUlwoNg"])
    clips = audiocaps.read(folder, split="test").clips
    assert clips["YQSuFyFm3Lc"].audio.stem in _caption_ids("YQSuFyFm3Lc")


def test_the_form_that_most_clips_have_is_taken_for_all(folder, tone):
    _render(folder, tone, "Y{}.wav".format, names=list(_CLIPS)[:3])
    tone(folder / "test" / "GOD8Bt5LfDE.wav")
    clips = audiocaps.read(folder, split="test").clips
    assert clips["GOD8Bt5LfDE"].audio.name == "YGOD8Bt5LfDE.wav"


def test_the_cluster_is_the_video(folder, tone):
    _render(folder, tone, "{}.wav".format)
    clips = audiocaps.read(folder, split="test").clips
    assert all(clip.cluster == name for name, clip in clips.items())


def test_unknown_file_names_are_shown_beside_the_known_forms(folder, tone):
    _render(folder, tone, "clip of {}.wav".format)
    with pytest.raises(UserError) as error:
        audiocaps.read(folder, split="test")
    assert "no file of the 4 clips" in str(error.value)
    assert "{youtube_id}, Y{youtube_id}, {youtube_id}_{start_time}" in str(error.value)
    assert "it holds clip of -NsC63dA01g.wav" in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no test\.csv or dataset/test\.csv"):
        audiocaps.read(tmp_path, split="test")


def test_a_missing_audio_folder_is_named(folder):
    with pytest.raises(UserError, match="has no test or audio/test or audio or"):
        audiocaps.read(folder, split="test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,,20,A dog", "an empty youtube_id or caption"),
        ("1,7fmOlUlwoNg,20, ", "an empty youtube_id or caption"),
        ("1,7fmOlUlwoNg,20.5,A dog", "start_time '20.5' and audiocap_id '1' should be numbers"),
        ("x,7fmOlUlwoNg,20,A dog", "should be numbers"),
        ("103000,7fmOlUlwoNg,20,A dog", "audiocap_id 103000 is listed twice"),
        ("1,7fmOlUlwoNg,30,A dog", "'7fmOlUlwoNg' starts at 30 here and 20 above"),
        ("1,7fmOlUlwoNg", "too few fields"),
    ],
)
def test_a_broken_row_is_named_by_line(folder, tone, line, message):
    _render(folder, tone, "{}.wav".format)
    _edit(folder, lambda rows: rows.insert(2, line))
    with pytest.raises(UserError, match=rf"test\.csv:3: .*{message}"):
        audiocaps.read(folder, split="test")


def test_a_table_without_the_published_columns_is_named(folder, tone):
    _render(folder, tone, "{}.wav".format)
    _edit(folder, lambda rows: rows.__setitem__(0, "file_name,caption_1,caption_2,caption_3"))
    with pytest.raises(UserError, match=r"test\.csv has no column 'audiocap_id', 'youtube_id'"):
        audiocaps.read(folder, split="test")


def test_a_clip_without_five_captions_is_named(folder, tone):
    _render(folder, tone, "{}.wav".format)
    _edit(folder, lambda rows: rows.pop(1))
    with pytest.raises(UserError, match="'7fmOlUlwoNg' has 4 captions"):
        audiocaps.read(folder, split="test")


def test_a_table_without_rows_is_an_error(folder, tone):
    _render(folder, tone, "{}.wav".format)
    (folder / "test.csv").write_text(_HEADER + "\n")
    with pytest.raises(UserError, match=r"test\.csv has no rows"):
        audiocaps.read(folder, split="test")


def test_train_is_not_a_split(folder):
    with pytest.raises(UserError, match="AudioCaps has no split 'train': use one of test, val"):
        audiocaps.read(folder, split="train")
