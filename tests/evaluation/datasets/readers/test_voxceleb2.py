"""VoxCeleb2 with its table's real header, paddings and ids, and the tables of ages beside it."""

import miniatures
import pytest
from miniatures import VOXCELEB2_DEV as _DEV
from miniatures import VOXCELEB2_META as _META
from miniatures import VOXCELEB2_TEST as _TEST

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import voxceleb2

_AGE_HEADER = "speaker_age,birth_year,Name,VoxCeleb_ID,video_id"
_EXTENDED_HEADER = (
    "Name,gender_wiki,birth_date_wiki,nationality_wiki,gender_dbpedia,birth_date_dbpedia,"
    "nationality_dbpedia,gender_gkg,birth_date_gkg,nationality_gkg,video_id,title,"
    "publishing_date,description,year_in_title,VoxCeleb_ID,gender,birth_year,year_upload_yt,"
    "recording_year,recording_year_title_only,speaker_age,speaker_age_title_only"
)


def _extended(speaker, video, age):
    """A row with a title that holds commas and a description over several lines."""
    description = '"Interview, uncut.\nRecorded in 2013 - see ""more"".\n"'
    return (
        f'A Name,male,1983-12-02,US,male,,,male,1983-12-02,US,{video},"Title, 2013",'
        f"2013-01-30T12:22:48Z,{description},2013,{speaker},male,1983.0,2013,2013.0,2013.0,"
        f"{age},{age}"
    )


@pytest.fixture
def folder(tmp_path, tone):
    miniatures.voxceleb2(tmp_path, tone)
    return tmp_path


def _ages(folder, name, *lines):
    header = _EXTENDED_HEADER if name.startswith("final") else _AGE_HEADER
    (folder / name).write_text("\n".join((header, *lines)) + "\n")


def _rows(corpus, row):
    return [item for item in corpus.items if item.row == row]


def test_every_utterance_of_the_test_set_is_asked_for_gender(folder):
    items = _rows(voxceleb2.read(folder, split="test"), "voxceleb2_gender")
    assert [item.clip_id for item in items] == list(_TEST)
    assert [item.label for item in items] == ["male", "male", "male", "female"]
    assert {item.choices for item in items} == {("female", "male")}
    assert items[0].item_id == "id00017/01dfn2spqyE/00001-gender"


def test_the_cluster_is_the_speaker(folder):
    clips = voxceleb2.read(folder, split="test").clips
    assert [clip.cluster for clip in clips.values()] == ["id00017"] * 3 + ["id00419"]


def test_clips_lie_in_speaker_and_video_folders(folder):
    clips = voxceleb2.read(folder, split="test").clips
    assert clips[_TEST[0]].audio == folder / "test" / "wav" / f"{_TEST[0]}.wav"
    assert all(clip.audio.exists() for clip in clips.values())


@pytest.mark.parametrize("place", ["test/aac", "vox2_test_aac/aac"])
def test_the_published_m4a_files_are_found(folder, place):
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "test" / "wav").rename(folder / place)
    for file in list((folder / place).rglob("*.wav")):
        file.rename(file.with_suffix(".m4a"))  # this machine need not be able to write AAC
    clips = voxceleb2.read(folder, split="test").clips
    assert clips[_TEST[0]].audio == folder / place / f"{_TEST[0]}.m4a"
    assert len(clips) == 4


def test_an_utterance_in_both_formats_is_asked_once_as_wav(folder):
    for name in (_TEST[0], "id00419/1zffAxBod_c/00007"):
        path = folder / "test" / "aac" / f"{name}.m4a"
        path.parent.mkdir(parents=True)
        path.touch()
    clips = voxceleb2.read(folder, split="test").clips
    assert len(clips) == 5
    assert clips[_TEST[0]].audio.suffix == ".wav"
    assert clips["id00419/1zffAxBod_c/00007"].audio.suffix == ".m4a"


@pytest.mark.parametrize(
    "header", ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ", "VoxCeleb2 ID\tVGGFace2 ID\tGender\tSet"]
)
def test_copies_of_the_table_with_commas_or_without_names_are_read(folder, header):
    mark = "," if "," in header else "\t"
    rows = [header]
    rows += [mark.join(line.split("\t")[1:]) for line in _META.splitlines()[1:]]
    (folder / "vox2_meta.csv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")
    assert len(voxceleb2.read(folder, split="test").items) == 4


def test_the_table_may_lie_in_a_folder_of_tables(folder):
    (folder / "meta").mkdir()
    (folder / "vox2_meta.csv").rename(folder / "meta" / "vox2_meta.csv")
    _ages(folder / "meta", "age-train.txt", "40.0,1974.0,Amy_Adams,id00419,1zffAxBod_c")
    assert len(_rows(voxceleb2.read(folder, split="test"), "voxceleb2_age")) == 1


def test_without_tables_of_ages_there_is_no_age_row(folder):
    assert not _rows(voxceleb2.read(folder, split="test"), "voxceleb2_age")


def test_ages_of_the_full_table_are_asked_where_known(folder):
    _ages(
        folder,
        "final_dataframe_extended.csv",
        _extended("id00017", "01dfn2spqyE", ""),
        _extended("id00017", "5MkXgwdrmJw", "30.0"),
        _extended("id10001", "1zcIwhmdeo4", "50.0"),
        _extended("id05351", "axdSgSJ2FFc", "20.0"),
    )
    items = _rows(voxceleb2.read(folder, split="test"), "voxceleb2_age")
    assert [item.item_id for item in items] == [f"{name}-age" for name in _TEST[1:3]]
    assert {item.references for item in items} == {("30",)}
    assert [dict(item.groups) for item in items] == [{"gender": "male"}] * 2


def test_the_two_small_tables_serve_the_test_set_together(folder):
    _ages(folder, "age-train.txt", "30.0,1983.0,Aaron_Rodgers,id00017,01dfn2spqyE")
    _ages(folder, "age-test.txt", "40.0,1974.0,Amy_Adams,id00419,1zffAxBod_c")
    items = _rows(voxceleb2.read(folder, split="test"), "voxceleb2_age")
    assert [(item.clip_id, item.label) for item in items] == [(_TEST[0], "30"), (_TEST[3], "40")]


def test_the_age_test_has_the_listed_videos_of_both_sets_and_no_gender_row(folder):
    _ages(
        folder,
        "age-test.txt",
        "20.0,1995.0,Luke_Shaw,id05351,axdSgSJ2FFc",
        "40.0,1974.0,Amy_Adams,id00419,1zffAxBod_c",
    )
    _ages(folder, "age-train.txt", "30.0,1983.0,Aaron_Rodgers,id00017,01dfn2spqyE")
    corpus = voxceleb2.read(folder, split="age_test")
    assert [item.clip_id for item in corpus.items] == [_TEST[3], *_DEV[:2]]
    assert [item.label for item in corpus.items] == ["40", "20", "20"]
    assert {item.row for item in corpus.items} == {"voxceleb2_age"}
    assert set(corpus.clips) == {item.clip_id for item in corpus.items}


def test_the_age_test_needs_its_table(folder):
    with pytest.raises(UserError, match=r"age-test\.txt does not exist"):
        voxceleb2.read(folder, split="age_test")


def test_a_video_of_the_age_test_without_audio_is_named(folder):
    _ages(folder, "age-test.txt", "26.0,1987.0,Aaron_Ashmore,id00012,DoazlQs250s")
    with pytest.raises(UserError, match=r"has no audio of id00012/DoazlQs250s, whose ages"):
        voxceleb2.read(folder, split="age_test")


def test_a_video_of_the_test_set_with_an_age_but_no_audio_is_named(folder):
    _ages(folder, "age-train.txt", "30.0,1983.0,Aaron_Rodgers,id00017,lostlostlos")
    with pytest.raises(UserError, match=r"has no audio of id00017/lostlostlos, whose ages"):
        voxceleb2.read(folder, split="test")


def test_a_test_speaker_without_audio_is_named_but_not_the_two_never_released(folder):
    for file in (folder / "test" / "wav" / "id00419").rglob("*.wav"):
        file.unlink()
    with pytest.raises(UserError, match="has no audio of speakers id00419, which"):
        voxceleb2.read(folder, split="test")


def test_a_missing_audio_folder_names_the_places(folder):
    (folder / "test").rename(folder / "elsewhere")
    with pytest.raises(UserError, match="has no test/wav or test/aac or vox2_test_aac/aac"):
        voxceleb2.read(folder, split="test")


def test_a_missing_table_is_named(folder):
    (folder / "vox2_meta.csv").unlink()
    with pytest.raises(UserError, match=r"has no vox2_meta\.csv or meta/vox2_meta\.csv"):
        voxceleb2.read(folder, split="test")


def test_a_table_without_its_columns_is_named(folder):
    (folder / "vox2_meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n")
    with pytest.raises(UserError, match=r"vox2_meta\.csv has no column 'VoxCeleb2 ID'; it has"):
        voxceleb2.read(folder, split="test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A_B \tid00020 \tn000020 \tx \tdev ", "gender 'x' and set 'dev'"),
        ("A_B \tid00020 \tn000020 \tm \ttrain ", "gender 'm' and set 'train'"),
        ("A_B \tid00020 \tn000020 ", "3 fields, where the header has 5"),
        ("A_B \tid00012 \tn000012 \tm \tdev ", "speaker 'id00012' is listed twice"),
    ],
)
def test_a_broken_row_of_the_table_is_named_by_line(folder, line, message):
    table = folder / "vox2_meta.csv"
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"vox2_meta\.csv:8: {message}"):
        voxceleb2.read(folder, split="test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("30.5,1983.0,Aaron_Rodgers,id00017,01dfn2spqyE", "speaker_age is '30.5'"),
        ("nan,1983.0,Aaron_Rodgers,id00017,01dfn2spqyE", "speaker_age is 'nan'"),
        ("30.0,1983.0,Aaron_Rodgers,id00017,", "an age without VoxCeleb_ID or video_id"),
        ("30.0,1983.0,Nobody,id00099,01dfn2spqyE", "speaker 'id00099' is not in the table"),
        ("30.0,1983.0,Amy_Adams,id00419,1zffAxBod_c", "id00419/1zffAxBod_c is 30 here and 40"),
        ("30.0,1983.0,Aaron_Rodgers", "too few fields"),
    ],
)
def test_a_broken_age_is_named_by_line(folder, line, message):
    _ages(folder, "age-test.txt", "40.0,1974.0,Amy_Adams,id00419,1zffAxBod_c", line)
    with pytest.raises(UserError, match=rf"age-test\.txt:3: {message}"):
        voxceleb2.read(folder, split="test")


def test_a_table_of_ages_without_its_columns_is_named(folder):
    (folder / "age-test.txt").write_text("age,speaker,video\n30,id00017,01dfn2spqyE\n")
    with pytest.raises(UserError, match=r"age-test\.txt has no column 'VoxCeleb_ID', 'video_id'"):
        voxceleb2.read(folder, split="test")


def test_dev_is_not_a_split(folder):
    with pytest.raises(UserError, match="VoxCeleb2 has no split 'dev': use one of test, age_test"):
        voxceleb2.read(folder, split="dev")
