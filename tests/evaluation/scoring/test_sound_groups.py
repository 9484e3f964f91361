"""Groups of sounds in answers: a table that people can check, every label, and what is scored."""

import json
from pathlib import Path

import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.scoring import sound_groups
from ltu_jax.evaluation.scoring.interface import Answered, Status, Tools

ANSWERS = [
    json.loads(line)
    for line in (Path(__file__).parent / "sound_group_answers.jsonl").read_text().splitlines()
]
LABELS = sound_groups.words().labels


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row["answer"][:40])
def test_the_group_that_an_answer_names(row):
    assert sound_groups.named_group(row["answer"]) == row["group"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_names_its_own_group_however_it_is_quoted(label):
    quoted = (label, label.lower(), f"Labels: {label}", f"The sound of {label.lower()}.")
    assert {sound_groups.named_group(text) for text in quoted} == {LABELS[label]}


def test_the_groups_name_themselves_and_no_word_stands_twice():
    words = sound_groups.words()
    assert len(words.groups) == 18
    assert {sound_groups.named_group(group) for group in words.groups} == set(words.groups)
    assert not set(words.names) & set(words.sounds)


def test_none_and_several_are_wrong_and_are_told_apart():
    def score(label, output):
        item = Item(item_id="1", clip_id="1", row="sound", references=(label,))
        return sound_groups.graded(Answered(item=item, output=output, spoken_text=""))

    outputs = ["A wolf.", "A cow.", "A wolf and a cow.", "I cannot tell.", None]
    scores = [score("Howl", output) for output in outputs]
    assert [one.value for one in scores] == [1, 0, 0, 0, 0]
    assert [one.status for one in scores] == [
        Status.PARSED, Status.PARSED, Status.UNPARSED, Status.REFUSED, Status.MISSING,
    ]  # fmt: skip
    (metric,) = sound_groups.group_metrics()
    counts = np.asarray([one.counts for one in scores]).sum(axis=0)
    assert metric.strict.statistic(counts) == pytest.approx(1 / 5)
    assert "words v1" in metric.strict.describe(Tools())
    assert score("Dog / wolf", "barking").value == 1
    with pytest.raises(UserError, match="'Wind' is no class of the 18 groups"):
        score("Wind", "A dog.")


def test_a_joint_answer_needs_its_group_outside_the_words_and_the_words():
    said = "The cat sat on the mat."

    def score(output, label="Dog / wolf"):
        item = Item(item_id="1", clip_id="1", row="joint", references=(label,))
        return Answered(item=item, output=output, spoken_text=said)

    words = f"Spoken text: {said}"
    outputs = {
        f"Background sound: Dog. {words}": 1,
        f'A wolf howls while somebody says "{said}"': 1,
        "Background sound: Dog. Spoken text: The cat sat on a mat.": 1,  # 1 of 6 words
        "Background sound: Dog. Spoken text: A cat sits on the mat.": 0,  # 2 of 6
        f"Background sound: Rain. {words}": 0,
        f"Background sound: Dog; Rain. {words}": 0,
        f"Background sound: none. {words}": 0,  # the cat is said, not heard
        "Background sound: Dog.": 0,
        words: 0,
    }
    (metric,) = sound_groups.group_and_words_metrics()
    scores = metric.strict.grade([*map(score, outputs), score(None)], Tools())
    assert [one.value for one in scores] == [*outputs.values(), 0]
    assert scores[-1].status == Status.MISSING and scores[-3].parsed == "Dog / wolf"
    assert metric.paper is metric.strict
