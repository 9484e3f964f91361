"""MMAU test-mini: records as the release v05.15.25 has them."""

import json

import pytest
from miniatures import MMAU as FIRST
from miniatures import MMAU_ODD as ODD

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.mmau import read


def write(folder, records):
    (folder / "mmau-test-mini.json").write_text(json.dumps(records, indent=2))
    return folder


def test_questions_carry_their_options_as_the_authors_prompt(tmp_path):
    corpus = read(write(tmp_path, [FIRST, ODD]), split="test-mini")
    name = "test-mini-audios/3fe64f3d-282c-4bc8-a753-68f8f6c35652.wav"
    assert corpus.items[0] == Item(
        item_id="3fe64f3d-282c-4bc8-a753-68f8f6c35652",
        clip_id=name,
        row="mmau",
        question=(
            "Based on the given audio, identify the source of the speaking voice. Choose the "
            "correct option from the following options:\n(A) Man\n(B) Woman\n(C) Child\n(D) Robot"
        ),
        references=("Man",),
        choices=("Man", "Woman", "Child", "Robot"),
        groups={
            "task": "sound",
            "difficulty": "medium",
            "category": "Reasoning",
            "sub-category": "Acoustic Source Inference",
        },
    )
    assert corpus.clips[name] == AudioClip(clip_id=name, audio=tmp_path / name, cluster=name)


def test_oddities_of_the_release_are_kept(tmp_path):
    item = read(write(tmp_path, [ODD]), split="test-mini").items[0]
    assert item.references == ("four",)
    assert item.choices == ("four", "nine", "fourteen", "fourteen", "two")
    assert item.question.endswith("\n(D) fourteen\n(E) two")
    assert item.groups["category"] == "Reasoning"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Dog"}, r"mini.json, record 2: answer 'Dog' is none of the choices"),
        ({"choices": ["Man"]}, r"record 2: field 'choices' is \['Man'\]"),
        ({"choices": "Man"}, r"record 2: field 'choices' is 'Man'"),
        ({"question": ""}, r"record 2: field 'question' is ''"),
        ({"difficulty": None}, r"record 2: field 'difficulty' is None"),
        ({"split": "test"}, r"record 2: split is 'test'"),
        ({"id": ODD["id"]}, r"record 2: '43df3159.*' is listed twice"),
    ],
)
def test_a_broken_record_is_named(tmp_path, change, message):
    write(tmp_path, [ODD, {**FIRST, **change}])
    with pytest.raises(UserError, match=message):
        read(tmp_path, split="test-mini")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", r"mini.json is not valid JSON"),
        ("{}", r"mini.json is not a JSON list"),
        ("[3]", r"mini.json, record 1 is '3': it should be an object"),
        ("[]", r"mini.json has nothing of split 'test-mini'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    (tmp_path / "mmau-test-mini.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path, split="test-mini")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mmau-test-mini.json does not exist"):
        read(tmp_path, split="test-mini")
