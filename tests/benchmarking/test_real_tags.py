"""Rotations over folds of real recordings: what is learnt from, and how answers are counted."""

import numpy as np
import pytest

from benchmarks import real_tags
from data_pipelines.real.window_plan import CLASSES


def test_a_rotation_learns_from_the_other_folds_alone():
    for fold in range(4):
        for licences in (real_tags.ALL, real_tags.SHIPS):
            datasets = real_tags.rotated(fold, licences)
            assert len(set(datasets)) == len(datasets) == (6 if licences == real_tags.ALL else 3)
            assert not any(f"fold{fold}_" in name for name in datasets)
            others = [name for name in datasets if name.endswith("_other")]
            assert bool(others) == (licences == real_tags.ALL)


def test_the_group_is_that_of_the_highest_class_that_has_one():
    scores = np.zeros((3, len(CLASSES) + 1))
    place = {name: number for number, name in enumerate((*CLASSES, "Vehicle"))}
    scores[0, place["Howl"]] = 0.2
    scores[0, place["Wind"]] = 0.9  # in no group
    scores[1, place["Glass"]] = 0.3
    scores[1, place["Vehicle"]] = 0.8  # of the teacher alone
    scores[2, place["Sheep"]], scores[2, place["Dog"]] = 0.6, 0.5
    found = real_tags.best_groups(scores, list(place))
    assert found == ["Dog / wolf", "Door / tools / machine / domestic", "Livestock"]


def test_shuffled_hears_a_recording_of_another_group():
    groups = ["Cat"] * 30 + ["Horse"] * 9 + ["Brass / woodwind"]
    asked = [
        real_tags.Asked(clip_id=f"c{at}", group=group, cluster=f"c{at}", record=at, ships=True)
        for at, group in enumerate(groups)
    ]
    order = real_tags.of_another_group(asked, seed=0)
    assert all(groups[at] != groups[other] for at, other in enumerate(order))
    assert len(set(order[:30])) > 5  # drawn, not one for all
    assert list(real_tags.of_another_group(asked, seed=0)) == list(order)


def test_files_of_one_recording_count_as_one():
    def rows(*right):  # two files of a cluster, then one of its own
        return [
            {"group": "Cat", "cluster": cluster, "heard": "Cat" if ok else "Horse"}
            for cluster, ok in zip(("a", "a", "b"), right, strict=True)
        ]

    rotations = [
        {"fold": 0, "rows": rows(True, False, True)},  # (1/2 + 1) / 2
        {"fold": 1, "rows": rows(False, False, True)},  # 1/2
    ]
    found = real_tags.scored(rotations, "heard")
    assert [one["value"] for one in found["folds"]] == [0.75, 0.5]
    assert found["mean"]["value"] == pytest.approx(0.625)
    assert found["mean"]["low"] <= 0.625 <= found["mean"]["high"]
    assert real_tags.by_group(rotations)["Cat"] == {
        "recordings": 6, "right": 3, "taken for": [("Horse", 3)],
    }  # fmt: skip
