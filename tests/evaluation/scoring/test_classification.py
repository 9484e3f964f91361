"""Nearest labels and named labels; accuracy and mAP of whole rows against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.scoring.interface import NotComputedError, Status, Tools
from ltu_jax.evaluation.scoring.task_metrics import (
    METRICS,
    Part,
    classification_metrics,
    multilabel_metrics,
)

SOUNDS = ("dog", "cat", "church_bells", "rain")
(ACCURACY,) = METRICS[Task.CLASSIFICATION]
(MAP,) = METRICS[Task.MULTILABEL]
(BOTH,) = METRICS[Task.CLASS_AND_WORDS]


def test_accuracy_equals_scikit_learn_in_both_rules(answer, figure, embedder):
    generator = np.random.default_rng(0)
    for _ in range(200):
        truth = generator.choice(SOUNDS, size=12).tolist()
        said = generator.choice(SOUNDS, size=12).tolist()
        answers = [
            answer(b.replace("_", " "), a, choices=SOUNDS) for a, b in zip(truth, said, strict=True)
        ]
        theirs = accuracy_score(truth, said)
        tools = Tools(embedder=embedder)
        assert figure(ACCURACY.paper, answers, tools) == pytest.approx(theirs, rel=1e-12)
        assert figure(ACCURACY.strict, answers, tools) == pytest.approx(theirs, rel=1e-12)


def test_the_official_match_embeds_labels_and_answers_in_their_frame(answer, embedder):
    (metric,) = classification_metrics(label_text="sound of {}", part=Part.AFTER_COLON)
    answers = [answer("Audio caption: Church bells ring.", "church_bells", choices=SOUNDS)]
    (score,) = metric.paper.grade(answers, Tools(embedder=embedder))
    assert (score.parsed, score.value) == ("church_bells", 1)
    assert embedder.texts == [
        "sound of church bells ring.",
        "sound of dog",
        "sound of cat",
        "sound of church bells",
        "sound of rain",
    ]


def test_an_empty_answer_is_embedded_officially_and_wrong_in_strict(answer, embedder):
    answers = [answer("", "dog", choices=SOUNDS)]
    tools = Tools(embedder=embedder)
    official = ACCURACY.paper.grade(answers, tools)[0]
    assert (official.parsed, official.value) == ("dog", 1)  # all cosines are 0: the first label
    strict = ACCURACY.strict.grade(answers, tools)[0]
    assert (strict.parsed, strict.value, strict.status) == (None, 0, Status.UNPARSED)


def test_an_answer_of_two_classes_gets_one_officially_and_none_in_strict(answer, embedder):
    answers = [answer("dog dog cat", "dog", choices=SOUNDS)]
    tools = Tools(embedder=embedder)
    assert ACCURACY.paper.grade(answers, tools)[0].value == 1
    assert ACCURACY.strict.grade(answers, tools)[0].value == 0


@pytest.mark.parametrize("metric", [ACCURACY, BOTH, MAP], ids=lambda metric: metric.name)
def test_a_missing_answer_is_dropped_officially_and_wrong_in_strict(metric, answer, embedder):
    given = {"choices": SOUNDS, "spoken_text": "hello"}
    answers = [answer(None, "dog", **given), answer('"hello" over a dog', "dog", **given)]
    official = metric.paper.grade(answers, Tools(embedder=embedder))
    assert [one.counts == () for one in official] == [True, False]
    missing, right = metric.strict.grade(answers, Tools())
    assert (missing.status, right.status) == (Status.MISSING, Status.PARSED)
    assert len(missing.counts) == len(right.counts)
    assert missing.value < right.value == 1


@pytest.mark.parametrize("metric", [ACCURACY, BOTH, MAP], ids=lambda metric: metric.name)
def test_without_an_embedder_the_official_figure_is_not_computed(metric, answer):
    answers = [answer("a dog", "dog", choices=SOUNDS)]
    with pytest.raises(NotComputedError, match="python -m ltu_jax.fetch all-minilm-l6-v2"):
        metric.paper.grade(answers, Tools())
    assert metric.strict.grade(answers, Tools())[0].value is not None


def test_the_embedder_is_part_of_the_official_name_only(embedder):
    tools = Tools(embedder=embedder)
    assert ACCURACY.paper.describe(tools) == "accuracy (word counts)"
    assert ACCURACY.strict.describe(tools) == "accuracy (label named)"


@pytest.mark.parametrize("label_text", ["sound", "{} of {}", "{0}", "{} {name}"])
def test_a_frame_has_one_place_for_the_label(label_text):
    for factory in (classification_metrics, multilabel_metrics):
        with pytest.raises(ValueError, match="one '{}'"):
            factory(label_text=label_text)


@pytest.mark.parametrize("metric", [ACCURACY, BOTH, MAP], ids=lambda metric: metric.name)
def test_a_reference_must_be_a_choice(metric, answer, embedder):
    answers = [answer("a dog", "wolf", choices=SOUNDS)]
    for rule in (metric.paper, metric.strict):
        with pytest.raises(UserError, match="'wolf' is not among"):
            rule.grade(answers, Tools(embedder=embedder))


def test_map_equals_scikit_learn_in_both_rules(answer, figure, embedder):
    generator = np.random.default_rng(3)
    tools = Tools(embedder=embedder)
    names = [choice.replace("_", " ") for choice in SOUNDS]
    for _ in range(200):
        size = int(generator.integers(2, 12))
        truth = generator.integers(0, 2, size=(size, len(SOUNDS)))
        truth[np.arange(size), generator.integers(0, len(SOUNDS), size=size)] = 1
        said = generator.integers(0, 3, size=(size, len(SOUNDS)))
        outputs = [", ".join(np.repeat(names, row).tolist()) or "nothing at all" for row in said]
        answers = [
            answer(output, "", choices=SOUNDS, references=tuple(np.array(SOUNDS)[row == 1]))
            for output, row in zip(outputs, truth, strict=True)
        ]
        present = truth.any(axis=0)
        cosines = embedder(outputs) @ embedder(names).T
        theirs = average_precision_score(truth[:, present], cosines[:, present])
        theirs *= present.mean()  # a label that nothing has counts as 0 there
        assert figure(MAP.paper, answers, tools) == pytest.approx(theirs, rel=1e-9)
        theirs = average_precision_score(truth[:, present], said[:, present] > 0)
        assert figure(MAP.strict, answers, tools) == pytest.approx(theirs, rel=1e-9)


def test_the_score_of_one_multilabel_answer_is_that_of_its_own_ranking(answer):
    answers = [
        answer("dog and rain", "", choices=SOUNDS, references=("dog", "cat")),
        answer("It's snowing", "", choices=SOUNDS, references=("rain",)),
    ]
    first, second = MAP.strict.grade(answers, Tools())
    truth, scores = np.array([1, 1, 0, 0]), np.array([1.0, 0, 0, 1])
    assert first.value == pytest.approx(average_precision_score(truth, scores))
    assert (first.parsed, first.status) == ("dog; rain", Status.PARSED)
    assert (second.parsed, second.status, second.value) == (None, Status.UNPARSED, 0.25)


def test_map_needs_the_same_labels_for_all_items(answer, embedder):
    answers = [answer("dog", "dog", choices=SOUNDS), answer("dog", "dog", choices=SOUNDS[:2])]
    for rule in (MAP.paper, MAP.strict):
        with pytest.raises(UserError, match="other choices"):
            rule.grade(answers, Tools(embedder=embedder))


@pytest.mark.parametrize(
    "output, official, strict",
    [
        ('"The cat sat on the mat." over a dog', 1, 1),
        ('"The cat sat on a mat" over a dog', 1, 1),
        ('"The cat sat on the mat." over a cat', 0, 0),
        ('"The cat ate all your mat" over a dog', 0, 0),
        ('"The cat sat on the mat." over dog dog cat', 1, 0),
        ("a dog", 0, 0),
    ],
)
def test_a_joint_answer_needs_the_sound_and_the_words(output, official, strict, answer, embedder):
    answers = [answer(output, "dog", choices=SOUNDS, spoken_text="The cat sat on the mat.")]
    assert BOTH.paper.grade(answers, Tools(embedder=embedder))[0].value == official
    assert BOTH.strict.grade(answers, Tools())[0].value == strict
