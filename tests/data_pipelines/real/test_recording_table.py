"""The committed table: whole, closed over its packages, and never split within a recording."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from data_pipelines.real import fetch_recordings, recording_table
from data_pipelines.real.recording_table import TRAIN, TWIN, VALIDATION
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.scoring import sound_groups
from ltu_jax.preprocessing.names import ENDINGS

ALL = recording_table.recordings()


def test_every_recording_is_named_once_and_lies_in_a_package_of_the_table():
    packages = recording_table.recording_packages()
    assert len(ALL) == 3_660 and len(packages) == 56 and sum(one.ships for one in ALL) == 1_882
    for names in ([one.clip for one in ALL], [(one.package, one.file) for one in ALL]):
        assert not [name for name, count in Counter(names).items() if count > 1]
    assert all(re.fullmatch("[a-z0-9_]+__[a-z0-9_]*[a-z0-9]", one.clip) for one in ALL)
    sounds = [one for one in ALL if not one.preset]
    assert {fetch_recordings.audio_file(Path(), one).suffix for one in sounds} <= set(ENDINGS)
    assert {one.package for one in ALL} == set(packages)
    assert all(len(package.sha256) == 64 and package.size > 0 for package in packages.values())
    assert all(one.preset or len(one.sha256) == 16 for one in ALL)
    for name in packages:  # a fold is made of whole packages
        assert len({one.fold for one in ALL if one.package == name}) == 1


def test_groups_are_those_that_answers_are_graded_over():
    labels = sound_groups.words().labels
    assert {one.label: one.group for one in ALL if one.group} == labels
    assert not {one.label for one in ALL if not one.group} & set(labels)


def test_a_finer_class_is_read_as_the_group_of_its_recording():
    pairs = {(one.fine, one.group) for one in ALL if one.group and not one.preset}
    wrong = {pair for pair in pairs if sound_groups.named_group(pair[0]) != pair[1]}
    assert not wrong


@pytest.mark.parametrize("fold", range(recording_table.FOLDS))
@pytest.mark.parametrize("ships", [False, True])
def test_a_cluster_is_on_one_side_of_a_fold(fold, ships):
    given = [one for one in ALL if one.ships or not ships]
    sides = recording_table.fold_sides(given, fold)
    assert not {one.cluster for one in sides.train} & {one.cluster for one in sides.held_out}
    assert not {one.package for one in sides.train} & {one.package for one in sides.held_out}
    dropped = set(given) - set(sides.train) - set(sides.held_out)
    for one in dropped:  # each has a twin in another fold
        assert len({other.fold for other in given if other.cluster == one.cluster}) > 1
    learnt = {one.group for one in sides.train}
    assert set(sides.unlearnt) == {one.group for one in sides.held_out} - learnt


def test_validation_drops_the_twins_and_a_split_cluster_is_refused():
    sides = recording_table.validation_sides(ALL)
    assert {one.split for one in sides.train} == {TRAIN}
    assert {one.split for one in sides.held_out} == {VALIDATION}
    assert not {one.cluster for one in sides.train} & {one.cluster for one in sides.held_out}
    twin = next(one for one in ALL if one.split == TWIN)
    sibling = next(one for one in ALL if one.cluster == twin.cluster and one.split == VALIDATION)
    changed = dataclasses.replace(twin, split=TRAIN)
    with pytest.raises(UserError, match=f"cluster {twin.cluster} is on both sides"):
        recording_table.validation_sides([changed, sibling])
