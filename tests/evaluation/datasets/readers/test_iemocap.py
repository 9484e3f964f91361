"""IEMOCAP in a miniature of its release: five sessions, label files as published."""

from collections import Counter

import miniatures
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import iemocap


@pytest.fixture
def folder(tmp_path, tone):
    miniatures.iemocap(tmp_path, tone)
    return tmp_path


def _labels(folder):
    name = "Session5/dialog/EmoEvaluation/Ses05F_impro01.txt"
    return folder / "IEMOCAP_full_release" / name


def _edit(folder, old, new):
    path = _labels(folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_session_5_is_the_first_split_with_excited_as_happy(folder):
    assert iemocap.SPLITS[0] == "session5"
    corpus = iemocap.read(folder, split="session5")
    labels = [(item.item_id, item.label) for item in corpus.items[:5]]
    assert labels == [
        ("Ses05F_impro01_F000", "neutral"),
        ("Ses05F_impro01_M003", "angry"),
        ("Ses05F_impro01_F004", "happy"),
        ("Ses05F_impro01_M005", "happy"),
        ("Ses05F_impro01_F006", "sad"),
    ]
    assert len(corpus.items) == len(corpus.clips) == 10


def test_all_sessions_are_read_in_order(folder):
    corpus = iemocap.read(folder, split="all")
    assert Counter(item.groups["session"] for item in corpus.items) == dict.fromkeys("12345", 10)
    assert corpus.items[0].clip_id == "Ses01F_impro01_F000"
    assert Counter(item.label for item in corpus.items)["happy"] == 20


@pytest.mark.parametrize(("split", "count"), [("session5", 8), ("all", 40)])
def test_excited_turns_can_be_left_out(folder, split, count):
    corpus = iemocap.read(folder, split=f"{split}_without_excited")
    assert len(corpus.items) == count
    assert not any(item.clip_id.endswith("_M005") for item in corpus.items)


def test_the_four_classes_are_the_choices(folder):
    corpus = iemocap.read(folder, split="all")
    assert {item.choices for item in corpus.items} == {("angry", "happy", "neutral", "sad")}
    assert {item.row for item in corpus.items} == {"iemocap"}


def test_a_turn_lies_in_the_folder_of_its_dialog(folder):
    clips = iemocap.read(folder, split="session5").clips
    wav = folder / "IEMOCAP_full_release" / "Session5" / "sentences" / "wav"
    name = "Ses05M_script01_1b_F000"
    assert clips[name].audio == wav / "Ses05M_script01_1b" / f"{name}.wav"
    assert all(clip.audio.exists() for clip in clips.values())


def test_the_cluster_is_the_dialog(folder):
    clips = iemocap.read(folder, split="session5").clips
    assert {clip.cluster for clip in clips.values()} == {"Ses05F_impro01", "Ses05M_script01_1b"}


def test_the_speaker_is_who_has_the_turn_not_who_wears_the_markers(folder):
    groups = {item.clip_id: item.groups for item in iemocap.read(folder, split="session5").items}
    assert groups["Ses05F_impro01_M003"] == {
        "session": "5",
        "speaker": "Ses05M",
        "setting": "improvised",
    }
    assert groups["Ses05M_script01_1b_F000"]["speaker"] == "Ses05F"
    assert groups["Ses05M_script01_1b_F000"]["setting"] == "scripted"


def test_the_folder_of_sessions_itself_is_accepted(folder):
    root = folder / "IEMOCAP_full_release"
    assert len(iemocap.read(root, split="session5").items) == 10


def test_a_turn_without_sound_stays_an_item(folder):
    clip = iemocap.read(folder, split="session5").clips["Ses05F_impro01_F000"]
    clip.audio.unlink()
    assert iemocap.read(folder, split="session5").clips["Ses05F_impro01_F000"] == clip


def test_a_missing_session_is_named(folder):
    (folder / "IEMOCAP_full_release" / "Session3").rename(folder / "elsewhere")
    with pytest.raises(UserError, match="Session3 does not exist: it should be session 3"):
        iemocap.read(folder, split="all")


def test_a_folder_without_sessions_is_named(tmp_path):
    with pytest.raises(UserError, match="has no Session5 or IEMOCAP_full_release/Session5"):
        iemocap.read(tmp_path, split="session5")


def test_a_dialog_without_labels_is_named(folder):
    _labels(folder).unlink()
    with pytest.raises(UserError, match="EmoEvaluation has no labels of Ses05F_impro01: copy"):
        iemocap.read(folder, split="session5")


def test_a_session_without_label_files_is_named(folder):
    for path in _labels(folder).parent.glob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match=r"EmoEvaluation has no \.txt files"):
        iemocap.read(folder, split="session5")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tneu\t", "\tjoy\t", "unknown emotion 'joy'; known: ang, dis, exc"),
        ("\tneu\t", "\t", "a turn's line is .start - end., name, emotion"),
        ("Ses05F_impro01_F000", "Ses05F_impro02_F000", "should be Ses05F_impro01_F or _M"),
        ("Ses05F_impro01_F000", "Ses05F_impro01_X000", "should be Ses05F_impro01_F or _M"),
    ],
)
def test_a_broken_turn_is_named_by_line(folder, old, new, message):
    _edit(folder, old, new)
    with pytest.raises(UserError, match=rf"Ses05F_impro01\.txt:3.*{message}"):
        iemocap.read(folder, split="session5")


def test_a_turn_listed_twice_is_named(folder):
    _edit(folder, "Ses05F_impro01_F002", "Ses05F_impro01_F000")
    with pytest.raises(UserError, match=r"txt:15: turn 'Ses05F_impro01_F000' is listed twice"):
        iemocap.read(folder, split="session5")


def test_a_label_file_without_turns_is_named(folder):
    _labels(folder).write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n")
    with pytest.raises(UserError, match=r"Ses05F_impro01\.txt has no turn"):
        iemocap.read(folder, split="session5")


def test_other_sessions_are_not_splits(folder):
    with pytest.raises(UserError, match="IEMOCAP has no split 'session1': use one of session5"):
        iemocap.read(folder, split="session1")
