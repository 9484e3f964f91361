"""Doubles, caps and shares, against brute force."""

import random
import re

import numpy as np
import pytest

from data_pipelines.open_asqa.open_ended.near_duplicates import near_duplicates, signature
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.open_ended.selection import (
    CAPPED,
    DOUBLE,
    NEAR_DOUBLE,
    UNANSWERABLE,
    PairSelection,
    SelectionSettings,
)

WORDS = [f"w{number}" for number in range(400)]


def triples(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[place : place + 3]) for place in range(max(1, len(words) - 2))}


def jaccard(one, other):
    return len(triples(one) & triples(other)) / len(triples(one) | triples(other))


def test_signatures_estimate_the_share_of_triples():
    generator, errors = random.Random(0), []
    for _ in range(300):
        words = generator.choices(WORDS, k=40)
        changed = [w if generator.random() > 0.05 else generator.choice(WORDS) for w in words]
        one, other = " ".join(words), " ".join(changed)
        estimate = (signature(one) == signature(other)).mean()
        errors.append(estimate - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.08
    assert (signature("A dog, barks!") == signature("a DOG barks")).all()


def test_planted_paraphrases_are_found_and_others_are_not():
    generator, texts, planted = random.Random(1), [], set()
    for number in range(600):
        words = generator.choices(WORDS, k=40)
        texts.append(" ".join(words))
        if number % 3 == 0:  # the last word changes: 37 of 39 triples stay
            planted.add(len(texts))
            texts.append(" ".join([*words[:-1], generator.choice(WORDS)]))
    found = near_duplicates(np.stack([signature(text) for text in texts]), threshold=0.8)
    assert set(np.flatnonzero(found)) == planted


def test_what_is_like_a_dropped_text_only_is_kept():
    # a ~ b ~ c, but c is not like a: b goes, c stays
    signatures = np.arange(3 * 64, dtype=np.uint32).reshape(3, 64)
    signatures[1, :56] = signatures[0, :56]
    signatures[2, 8:] = signatures[1, 8:]
    assert near_duplicates(signatures, threshold=0.8).tolist() == [False, True, False]
    assert near_duplicates(signatures[:0], threshold=0.8).tolist() == []


def test_of_many_that_are_alike_one_is_kept():
    signatures = np.tile(np.arange(64, dtype=np.uint32), (1000, 1))
    assert near_duplicates(signatures, threshold=0.8).sum() == 999


def select(pairs, **settings):
    settings = {"unanswerable": 1.0, "doubles": False, "near": 0.8, "question_cap": 1000} | settings
    selection = PairSelection(SelectionSettings(**settings))
    for number, (question, answer, problem) in enumerate(pairs):
        selection.add(f"c{number}", QuestionAnswer(question, answer), problem)
    reasons = selection.decide()
    return reasons, selection.unique_shares(reasons)


def sentences(count, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=20)) for _ in range(count)]


def test_doubles_are_refused_and_told_apart_from_what_is_broken():
    one, two, three = sentences(3)
    pairs = [
        (one, "yes", ""), (f"{one}!", "Yes.", ""), (f"{one} more", "yes", ""),
        (two, "no", "broken"), (two, "no", ""), (three, "yes", ""),
    ]  # fmt: skip
    reasons, shares = select(pairs)
    assert reasons == ["", DOUBLE, NEAR_DOUBLE, "broken", "", ""]
    assert shares == (1.0, 2 / 3)
    assert select(pairs, near=1.0)[0] == ["", DOUBLE, "", "broken", "", ""]
    assert select(pairs, doubles=True)[0] == ["", "", "", "broken", "", ""]


def test_a_question_is_kept_so_often_whatever_the_order():
    answers = sentences(60)
    pairs = [("What is it?" if n % 2 else "Why?", answer, "") for n, answer in enumerate(answers)]
    reasons, shares = select(pairs, question_cap=10)
    kept = [question for (question, _, _), reason in zip(pairs, reasons, strict=True) if not reason]
    assert sorted(kept) == ["What is it?"] * 10 + ["Why?"] * 10
    assert set(reasons) == {"", CAPPED} and shares == (0.1, 1.0)


@pytest.mark.parametrize("share, kept", [(1.0, 40), (0.0, 0), (0.065, 4), (0.2, 15), (0.9, 40)])
def test_unanswerable_pairs_get_their_share(share, kept):
    answers = sentences(100)
    pairs = [
        (answer, "It cannot be determined from this." if n < 40 else answer, "")
        for n, answer in enumerate(answers)
    ]
    reasons, _ = select(pairs, unanswerable=share)
    assert reasons[40:] == [""] * 60
    assert reasons[:40].count("") == kept and set(reasons[:40]) <= {"", UNANSWERABLE}
    if 0 < kept < 40:
        assert kept / (60 + kept) <= share < (kept + 1) / (60 + kept + 1)


def test_no_pairs_are_no_trouble():
    assert select([]) == ([], (0.0, 0.0))
    assert select([("Why?", "no", "broken")]) == (["broken"], (0.0, 0.0))
