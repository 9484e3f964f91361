"""Baselines that know labels alone, under the rules that were made for sentences."""

import numpy as np
import pytest

from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.evaluation.datasets.item import Item, Task
from ltu_jax.evaluation.run import baselines
from ltu_jax.evaluation.scoring.interface import Answered, Tools

CHOICES = ("people marching", "ople marching", "dog")
GROUPS = ("Dog / wolf", "Bird & fowl", "Cat")  # where answers are graded over groups of sounds
ROWS = [
    pytest.param(row, id=name)
    for benchmark in BENCHMARKS.values()
    for name, row in benchmark.rows.items()
    if row.task is Task.CLASSIFICATION
]


class Exact:
    """Texts are alike only if they are equal."""

    name = "exact"

    def __init__(self):
        self.known: dict[str, int] = {}

    def __call__(self, texts):
        places = [self.known.setdefault(text, len(self.known)) for text in texts]
        return np.eye(64)[places]


@pytest.mark.parametrize("row", ROWS)
def test_a_label_as_an_answer_is_that_label_by_both_rules(row):
    choices = GROUPS if row.metrics[0].name == "group accuracy" else CHOICES
    items = [
        Item(item_id=f"{i}", clip_id="c", row="r", references=(label,), choices=choices)
        for i, label in enumerate([choices[0], choices[0], choices[2]])
    ]
    outputs = baselines.majority(items, row)
    answers = [Answered(item=item, output=outputs[item.item_id], spoken_text="") for item in items]
    for rule in (row.metrics[0].paper, row.metrics[0].strict):
        scores = rule.grade(answers, Tools(embedder=Exact()))
        assert [one.parsed for one in scores] == [choices[0]] * 3
        assert [one.value for one in scores] == [1, 1, 0]
