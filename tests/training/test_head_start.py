"""A label head that is fitted before the first step: standard inputs, and labels' frequencies."""

from types import SimpleNamespace

import jax
import numpy as np

from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.training import losses
from ltu_jax.training.head_start import fitted_head

WIDTH, LABELS, ROWS = 16, 3, 20


class Pipeline:
    """Four batches, whose features have a dimension that is large in every clip."""

    steps_per_epoch = 4

    def __init__(self):
        rng = np.random.default_rng(5)
        self.features = rng.normal(size=(4 * ROWS, 2, 4, WIDTH)).astype(np.float32)
        self.features[..., 3] += 40
        self.targets = (rng.random((4 * ROWS, LABELS)) < (0.5, 0.1, 0.0)).astype(np.float32)

    def batches(self, *, steps):
        for step in range(steps):
            rows = slice(step * ROWS, (step + 1) * ROWS)
            yield {"features": self.features[rows], "targets": self.targets[rows]}


def stage(pipeline):
    tltr = TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=2)
    config = TaggerConfig(tltr=tltr, labels=LABELS, d_input=None, audio_layers=None)
    return SimpleNamespace(
        model=Tagger.functional(config),
        features=lambda frozen, batch: batch["features"],
        mesh=make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1]),
        pipeline=pipeline,
        settings=SimpleNamespace(data=SimpleNamespace(rows_per_batch=ROWS)),
    )


def test_a_fitted_head_has_standard_inputs_and_says_the_frequencies():
    pipeline = Pipeline()
    made = stage(pipeline)
    params = made.model.init(jax.random.key(0))
    params = {**params, **fitted_head(made, params, clips=1_000)}
    tagger = made.model.bind(params)
    inputs = np.asarray(tagger.label_head.norm(tagger.tltr.pooled_first(pipeline.features)))
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(inputs.std(axis=0), 1, atol=1e-3)
    frequency = (pipeline.targets.sum(axis=0) + 0.5) / (4 * ROWS + 1)
    logits = tagger(pipeline.features)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), np.tile(frequency, (80, 1)), rtol=1e-4)
    # Nothing that says the same of every clip is better.
    told = float(losses.binary_cross_entropy(logits, pipeline.targets))
    entropy = -(frequency * np.log(frequency) + (1 - frequency) * np.log1p(-frequency)).mean()
    assert abs(told - entropy) < 0.02


def test_so_many_clips_are_heard_as_asked_for():
    pipeline = Pipeline()
    made = stage(pipeline)
    params = made.model.init(jax.random.key(0))
    bias = fitted_head(made, params, clips=ROWS + 1)["label_head.bias"]
    frequency = (pipeline.targets[: 2 * ROWS].sum(axis=0) + 0.5) / (2 * ROWS + 1)
    np.testing.assert_allclose(bias, np.log(frequency / (1 - frequency)), rtol=1e-5)
