"""Losses against brute force and live PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ltu_jax.models.text_batch import TARGET_IDS, TARGET_POSITIONS, with_targets
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses

pytestmark = pytest.mark.optimised


def batch_of(labels):
    return {"labels": np.asarray(labels, np.int32), "input_ids": np.zeros_like(labels)}


@pytest.mark.parametrize("dense", [True, False])
def test_targets_are_every_shifted_label_once(dense):
    rng = np.random.default_rng(0)
    for _ in range(50):
        length = int(rng.integers(2, 60))
        labels = rng.integers(0, 9, (4, length))
        labels[rng.random(labels.shape) < rng.random()] = IGNORE
        found = with_targets(batch_of(labels), most=len(labels[0]) - 1 if dense else 0)
        assert "labels" not in found and "input_ids" in found
        for row in range(4):
            pairs = [
                (int(position), int(target))
                for position, target in zip(
                    found[TARGET_POSITIONS][row], found[TARGET_IDS][row], strict=True
                )
                if target != IGNORE
            ]
            expected = [
                (t, int(labels[row, t + 1]))
                for t in range(length - 1)
                if labels[row, t + 1] != IGNORE
            ]
            assert pairs == expected


def test_buckets_are_few():
    places = set()
    for count in range(97):
        labels = np.full((2, 97), IGNORE)
        labels[0, 97 - count :] = 1
        found = with_targets(batch_of(labels))
        places.add(found[TARGET_IDS].shape[1])
    assert len(places) == 3 and max(places) == 96


def test_cross_entropy_is_that_of_torch():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 7, 11)).astype(np.float32) * 5
    targets = rng.integers(0, 11, (3, 7))
    targets[0, :5] = IGNORE
    loss, accuracy = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits).reshape(-1, 11), torch.tensor(targets).reshape(-1), ignore_index=-100
    )
    np.testing.assert_allclose(float(loss), float(theirs), rtol=1e-6)
    valid = targets != IGNORE
    assert float(accuracy) == pytest.approx((logits.argmax(-1) == targets)[valid].mean())


def test_no_targets_is_loss_zero_with_zero_gradient():
    targets = jnp.full((2, 3), IGNORE)

    def loss(logits):
        return losses.cross_entropy(logits, targets)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3, 5)))
    assert float(value) == 0.0 and not np.asarray(gradient).any()


def test_binary_cross_entropy_is_that_of_torch():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4, 6)).astype(np.float32) * 30
    targets = (rng.random((4, 6)) < 0.3).astype(np.float32)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(targets)
    )
    found = losses.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(float(found), float(theirs), rtol=1e-6)
