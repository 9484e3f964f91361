"""Acoustic descriptions of classes: short, of characters that answers allow, found by any name."""

import re

import pytest

from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.open_asqa.class_descriptions import class_descriptions, plain_name
from data_pipelines.open_asqa.closed_ended import ClipFindings, closed_pairs
from data_pipelines.open_asqa.source_clip import SourceClip

ALL = class_descriptions()


def test_every_description_is_short_and_its_own():
    for name in ALL:
        about = ALL.about(name)
        assert len(about.texts) in (3, 10) and len(set(about.texts)) == len(about.texts), name
        assert about.made_by and re.fullmatch(r"\w+-\d+", about.version)
        for text in about.texts:
            assert 1 <= len(text.split()) <= 9, (name, text)
            # "; ", ": " and " -> " divide answers.
            assert re.fullmatch(r"[A-Za-z ,'-]+", text), (name, text)


def test_hardly_any_description_is_of_two_classes():
    owners: dict[str, set[str]] = {}
    for name in ALL:
        for text in ALL[name]:
            owners.setdefault(text, set()).add(ALL.about(name).name)
    assert sum(len(of) > 1 for of in owners.values()) <= len(owners) / 200


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Chirp, tweet", "Chirp and tweet"),  # AudioSet, FSD50K
        ("Bird vocalization, bird call, bird song",
         "Bird vocalization and bird call and bird song"),
        ("Dishes, pots, and pans", "Dishes and pots and pans"),
        ("Gunshot, gunfire", "gunshot_and_gunfire"),
        ("Piano", "Playing piano"),  # VGGSound
        ("Female speech, woman speaking", "female speech, woman speaking"),
        ("Helicopter", "helicopter"),  # the mini corpus
    ],
)  # fmt: skip
def test_a_class_is_found_by_the_names_of_each_data_set(name, other):
    assert ALL[name] is ALL[other]


def test_unlike_names_are_unlike_classes():
    assert ALL["Gurgling"] != ALL["Gurgling, bubbling"]
    assert "Hornet" not in ALL and ALL.get("Hornet") is None
    assert plain_name("Hands") != plain_name("H and s")


def test_the_mini_corpus_has_ten_of_each_class():
    for name in (*SOUNDS, *MUSIC, "music", "speech"):
        assert len(ALL[name]) == 10, name


def test_rows_draw_from_them_by_clip():
    def answer(number):
        clip = SourceClip(
            source="fsd50k", clip_id=str(number), dataset="x", files=("a",), where="t:1",
            licence="l", labels=("Chirp and tweet", "Rain"),
        )  # fmt: skip
        found = ClipFindings(descriptions=ALL)
        return closed_pairs(clip, found, tasks=("cla_label_des",), seed="0")[0].answer

    answers = {answer(number) for number in range(500)}
    rows = [a.removeprefix("Labels with acoustic features: ").split("; ") for a in answers]
    assert {part.split(" -> ")[1] for row in rows for part in row} == {"Chirp and tweet", "Rain"}
    assert {row[1].split(" -> ")[0] for row in rows} == set(ALL["Rain"])
    assert {row[0].split(" -> ")[0] for row in rows} == set(ALL["Chirp, tweet"])
