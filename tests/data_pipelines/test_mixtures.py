"""The table of what each stage trains on."""

import pytest

from data_pipelines import mixtures
from ltu_jax.core.errors import UserError


def _taken(mixture, *, task, closed_ended, dataset):
    return mixtures.takes_task(
        mixture.tasks, task=task, closed_ended=closed_ended
    ) and mixtures.takes_dataset(mixture.datasets, dataset=dataset)


@pytest.mark.parametrize(("stage", "open_too"), [(1, False), (2, False), (3, True)])
def test_stages_one_and_two_are_classification_only(stage, open_too):
    mixture = mixtures.for_stage(stage)
    assert _taken(mixture, task="cla_sound", closed_ended=True, dataset="mini_joint")
    found = _taken(mixture, task="open_describe", closed_ended=False, dataset="mini_joint")
    assert found == open_too


def test_ablation_mixtures_part_audio_from_speech():
    for dataset, kind in (("AudioSet_20k", "audio_only"), ("VoxCeleb2_train", "speech_only")):
        for name in ("audio_only", "speech_only"):
            mixture = mixtures.mixture(name)
            found = _taken(mixture, task="t", closed_ended=True, dataset=dataset)
            assert found == (name == kind)


def test_every_mini_dataset_of_training_is_in_the_full_mixture_and_joint_in_no_ablation():
    for kind in ("sound", "music", "speech", "joint"):
        names = [
            name
            for name in ("all", "audio_only", "speech_only")
            if _taken(mixtures.mixture(name), task="t", closed_ended=True, dataset=f"mini_{kind}")
        ]
        assert names[0] == "all" and len(names) == (1 if kind == "joint" else 2)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="mixture 'everything' is unknown; known are closed, open"):
        mixtures.mixture("everything")
    with pytest.raises(UserError, match="stage 4 is unknown; the curriculum has 1, 2, 3"):
        mixtures.for_stage(4)
