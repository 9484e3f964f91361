"""Classes named in sentences by hand-written cases; accuracy and macro-F1 against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ltu_jax.evaluation.metrics.closed import (
    chance_accuracy,
    chance_macro_f1,
    confusion_counts,
    macro_f1,
)
from ltu_jax.evaluation.scoring.reading.classes import named_class, named_classes

SOUNDS = ("dog", "cat", "bell", "church bell", "car horn", "rain")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The sound of a dog.", "dog"),
        ("DOG", "dog"),
        ("A dog, clearly a dog!", "dog"),
        ("It is a church bell.", "church bell"),
        ("It is a church-bell.", "church bell"),
        ("It is a\nchurch  bell", "church bell"),
        ("A bell rings.", "bell"),
        ("A church bell, and then another bell.", None),
        ("A dog or a cat.", None),
        ("hotdogs and raincoats", None),
        ("dogma", None),
        ("", None),
        ("car horn", "car horn"),
        ("a car", None),
    ],
)
def test_named_class(text, expected):
    assert named_class(text, SOUNDS) == expected


def test_named_classes_are_all_that_are_named_in_their_own_order():
    text = "Rain, a church-bell, rain again and a dog"
    assert named_classes(text, SOUNDS) == ("dog", "church bell", "rain")
    assert named_classes("hotdogs", SOUNDS) == ()


def test_female_is_not_male():
    assert named_class("The speaker is female.", ("male", "female")) == "female"
    assert named_class("The speaker is male.", ("male", "female")) == "male"
    assert named_class("male or female", ("male", "female")) is None


def test_choices_with_regex_characters_are_literal():
    assert named_class("played on a c++ synth", ("c++", "c")) == "c++"


@pytest.mark.parametrize("seed", range(4))
def test_macro_f1_equals_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    classes = ("a", "b", "c")
    truth = generator.choice(classes, size=50).tolist()
    predicted = generator.choice([*classes, None], size=50).tolist()
    ours = macro_f1(confusion_counts(truth, predicted, classes=classes).sum(axis=0))
    theirs = f1_score(
        truth,
        ["unparsed" if guess is None else guess for guess in predicted],
        labels=classes,
        average="macro",
    )
    assert float(ours) == pytest.approx(theirs, rel=1e-12)


def test_macro_f1_leaves_out_a_class_that_does_not_occur():
    counts = confusion_counts(["a", "a"], ["a", "b"], classes=("a", "b", "c"))
    theirs = f1_score(["a", "a"], ["a", "b"], average="macro")
    assert float(macro_f1(counts.sum(axis=0))) == pytest.approx(theirs)


def test_macro_f1_works_on_many_sums_at_once():
    generator = np.random.default_rng(0)
    truth, predicted = generator.choice(("a", "b"), size=(2, 20)).tolist()
    counts = confusion_counts(truth, predicted, classes=("a", "b"))
    draws = generator.multinomial(20, np.full(20, 1 / 20), size=5)
    together = macro_f1(draws @ counts)
    assert together == pytest.approx([float(macro_f1(draw @ counts)) for draw in draws])


def test_chance_accuracy_is_the_best_constant_answer_to_each_kind_of_question():
    pitch, speed = ("low", "high"), ("slow", "fast")
    truth = ["low", "low", "high", "slow", "fast", "fast", "fast"]
    choices = [pitch] * 3 + [speed] * 4
    assert chance_accuracy(truth, choices) == pytest.approx((2 + 3) / 7)
    balanced = list(SOUNDS) * 10
    assert chance_accuracy(balanced, [SOUNDS] * 60) == pytest.approx(1 / 6)


def test_chance_macro_f1_equals_simulated_guessing():
    classes = ("male", "female")
    truth = ["male"] * 600 + ["female"] * 400
    generator = np.random.default_rng(0)
    simulated = np.mean(
        [
            f1_score(truth, generator.choice(classes, size=1000).tolist(), average="macro")
            for _ in range(40)
        ]
    )
    assert chance_macro_f1(truth, classes=classes) == pytest.approx(simulated, abs=0.01)
    one_sided = ["male"] * 99 + ["female"]
    constant = f1_score(one_sided, ["male"] * 100, average="macro")
    assert chance_macro_f1(one_sided, classes=classes) == pytest.approx(constant)
