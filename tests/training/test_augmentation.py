"""Augmentation of the tagging stage against Whisper-AT's formulas, written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.training import losses
from ltu_jax.training.augmentation import AugmentationConfig, augment

ROWS, LAYERS, POSITIONS, WIDTH, LABELS = 4000, 2, 25, 3, 5


def config(**settings) -> AugmentationConfig:
    return AugmentationConfig(**{"mixup": 0.0, "time_mask": 0, "label_smoothing": 0.0} | settings)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(ROWS, LAYERS, POSITIONS, WIDTH)).astype(np.float32)
    return audio, np.eye(LABELS, dtype=np.float32)[np.arange(ROWS) % LABELS]


def augmented(settings, audio, targets, seed=0):
    found = augment(settings, jnp.asarray(audio), jnp.asarray(targets), key=jax.random.key(seed))
    return [np.asarray(leaf) for leaf in found]


def test_half_of_the_clips_are_mixed_with_the_one_before_in_shares_of_beta():
    audio, targets = batch()
    mixed_audio, mixed = augmented(config(mixup=0.5), audio, targets)
    share = mixed[np.arange(ROWS), np.arange(ROWS) % LABELS][:, None, None, None]
    np.testing.assert_allclose(
        mixed_audio, share * audio + (1 - share) * np.roll(audio, 1, axis=0), atol=1e-6
    )
    np.testing.assert_allclose(mixed.sum(axis=1), 1.0, atol=1e-6)
    shares = share[share < 1]
    assert len(shares) / ROWS == pytest.approx(0.5, abs=0.03)
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / 84, rel=0.1)  # of Beta(10, 10)


def test_masks_are_shorter_than_their_most_and_anywhere():
    audio, targets = batch()
    masked, same = augmented(config(time_mask=10), audio, targets)
    np.testing.assert_array_equal(same, targets)
    zero = (masked == 0).all(axis=(1, 3))
    np.testing.assert_array_equal(masked, np.where(zero[:, None, :, None], 0, audio))
    widths = zero.sum(axis=1)
    counts = np.bincount(widths, minlength=10)
    assert len(counts) == 10 and np.allclose(counts / ROWS, 0.1, atol=0.02)
    edges = np.abs(np.diff(np.pad(zero, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1)
    assert set(edges) == {0, 2}  # one run of positions
    assert zero[:, :-1].any(axis=0).all()  # torchaudio's never ends at the last one


def test_targets_are_smoothed_as_the_official_loader_does():
    audio, targets = batch()
    _, plain = augmented(config(label_smoothing=0.1), audio, targets)
    np.testing.assert_allclose(plain, np.where(targets == 1, 0.9, 0.02), atol=1e-6)
    _, mixed = augmented(config(mixup=1.0), audio, targets)
    _, smooth = augmented(config(mixup=1.0, label_smoothing=0.1), audio, targets)
    np.testing.assert_allclose(smooth, 0.02 + 0.9 * mixed, atol=1e-6)


def test_features_keep_their_dtype():
    audio, targets = batch()
    found, _ = augment(
        config(mixup=0.5, time_mask=10), jnp.asarray(audio, jnp.bfloat16), targets,
        key=jax.random.key(1),
    )  # fmt: skip
    assert found.dtype == jnp.bfloat16


def test_a_batch_that_is_trained_on_is_augmented_and_one_that_is_measured_is_not():
    tltr = TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=1)
    tagger = TaggerConfig(tltr=tltr, labels=LABELS, d_input=None, audio_layers=LAYERS)
    model = Tagger.functional(tagger)
    params = model.init(jax.random.key(0))
    audio, targets = batch()
    rows = {"features": jnp.asarray(audio[:8]), "targets": jnp.asarray(targets[:8])}
    settings = config(mixup=1.0, time_mask=10, label_smoothing=0.1)
    loss, off = (
        losses.tagging_loss(model, features=lambda _, batch: batch["features"], augmentation=each)
        for each in (settings, config())
    )
    key = jax.random.key(3)
    expected, _ = off(params, {}, rows, None)
    assert loss(params, {}, rows, None)[0] == expected == off(params, {}, rows, key)[0]
    changed = augment(settings, rows["features"], rows["targets"], key=key)
    expected, _ = off(params, {}, dict(zip(("features", "targets"), changed, strict=True)), None)
    assert loss(params, {}, rows, key)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "value"), [("mixup", 1.5), ("time_mask", 26), ("label_smoothing", -0.1)]
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=rf"config\.augmentation\.{name} is {value}"):
        config(**{name: value})
