"""A teacher's labels beside those of the clips: targets by hand, and files that do not fit."""

import numpy as np
import pytest
import torch

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.real import teacher_scores
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.training import losses
from tests.support import records_corpus

HEARD = {"noise": 0.8, "speech": 0.25}  # of every clip; the teacher knows no "tone"


def scores(path, clips, heard=HEARD):
    lines = [{"clip": clip.clip_id, "highest": heard, "mean": heard} for clip in clips]
    write_jsonl(path, [teacher_scores.header(10.0), *lines])
    return path


@pytest.fixture
def learnt(clips):
    return [clip for clip in clips if clip.split == "train" and clip.tags]


def open_tags(records_dir, teacher, **changed):
    values = dict(
        records=str(records_dir), split="train", layout="tags", cutoff=100, pairs_per_clip=1,
        clips_per_row=1, rows_per_batch=4, train_on="all", features="on_the_fly", seed=3,
        audio_tokens=25, n_mels=80, teacher=str(teacher), workers=0,
    )  # fmt: skip
    return InputPipeline(DataConfig(**values | changed))


def test_targets_are_the_higher_of_the_label_and_the_weighted_score(records_dir, learnt, tmp_path):
    teacher = scores(tmp_path / "scores.jsonl", learnt)
    by_id = {clip.clip_id: clip for clip in learnt}
    for weight in (1.0, 0.5):
        pipeline = open_tags(records_dir, teacher, teacher_weight=weight)
        batch = next(pipeline.batches())
        for row in range(4):
            tags = by_id[pipeline.contents(row)[0][0]].tags
            wanted = [
                1.0 if label in tags else weight * HEARD.get(label, 0.0)
                for label in records_corpus.LABELS
            ]
            np.testing.assert_allclose(batch["targets"][row], wanted, rtol=1e-6)
    batch = next(open_tags(records_dir, "").batches())
    assert set(np.unique(batch["targets"])) <= {0.0, 1.0}


def test_the_loss_of_a_soft_target_is_its_closed_form():
    logits = np.linspace(-20, 20, 9).astype(np.float32)[None]
    targets = np.asarray([[0.0, 0.8, 0.25, 1.0, 0.5, 0.1, 1.0, 0.3, 0.9]], np.float32)
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    by_hand = -(targets * np.log(probability) + (1 - targets) * np.log1p(-probability)).mean()
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(targets)
    )
    found = float(losses.binary_cross_entropy(logits, targets))
    np.testing.assert_allclose([found, float(theirs)], by_hand, rtol=1e-5)


def test_scores_that_do_not_fit_are_refused(records_dir, learnt, tmp_path):
    with pytest.raises(UserError, match="no scores of 1 of 4 clips"):
        open_tags(records_dir, scores(tmp_path / "one_less.jsonl", learnt[1:]))
    with pytest.raises(UserError, match="scores none of the labels"):
        open_tags(records_dir, scores(tmp_path / "others.jsonl", learnt, {"Harp": 0.9}))
    with pytest.raises(UserError, match="there is no file"):
        open_tags(records_dir, tmp_path / "gone.jsonl")
    whole = scores(tmp_path / "whole.jsonl", learnt)
    with pytest.raises(UserError, match="teacher_weight is 1.5"):
        open_tags(records_dir, whole, teacher_weight=1.5)
    with pytest.raises(UserError, match="has no labels to be taught"):
        open_tags(records_dir, whole, layout="single")
