"""Answers to items in one line, an embedder that counts words, and figures from verdicts."""

import zlib

import numpy as np
import pytest

from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.scoring.interface import Answered, Tools


def make_answer(output, label, *, choices=(), spoken_text="", references=None, question="What?"):
    item = Item(
        item_id="item",
        clip_id="clip",
        row="row",
        references=references or (label,),
        choices=tuple(choices),
        question=question,
    )
    return Answered(item=item, output=output, spoken_text=spoken_text)


class WordCounts:
    """Unit vectors of word counts; a text without words is a vector of its own."""

    name = "word counts"

    def __init__(self):
        self.texts: list[str] = []

    def __call__(self, texts):
        self.texts += texts
        vectors = np.zeros((len(texts), 512))
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split() or [""]:
                row[zlib.crc32(word.strip(".,:").encode()) % 512] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_figure(rule, answers, tools=None):
    """The rule's figure over all answers that it counts."""
    scores = rule.grade(answers, tools or Tools())
    counts = np.array([one.counts for one in scores if one.counts])
    if rule.of_samples is not None:
        return float(rule.of_samples(counts, np.ones(len(counts))))
    return float(rule.statistic(counts.sum(axis=0)))


@pytest.fixture
def answer():
    return make_answer


@pytest.fixture
def figure():
    return make_figure


@pytest.fixture
def embedder() -> WordCounts:
    return WordCounts()
