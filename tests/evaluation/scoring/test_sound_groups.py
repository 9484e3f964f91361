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
