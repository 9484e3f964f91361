"""What is fitted before the first step: a label head's inputs and bias, and a projection."""

from types import SimpleNamespace

import jax
import numpy as np

from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.head_start import fitted_head, fitted_projection

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


CLASSES, WORDS, TOKENS = 3, 6, 4


class Pairs:
    """Batches of rows of two clips, whose features have their class; the last place has no pair."""

    steps_per_epoch = 4

    def __init__(self, *, classes=CLASSES):
        rng = np.random.default_rng(6)
        self.kinds = rng.integers(classes, size=(4 * ROWS, 2))
        of_class = rng.normal(size=(CLASSES, WIDTH))
        self.features = of_class[self.kinds][:, :, None, None] + 0.1 * rng.normal(
            size=(4 * ROWS, 2, 2, TOKENS, WIDTH)
        )

    def batches(self, *, steps):
        for step in range(steps):
            rows = slice(step * ROWS, (step + 1) * ROWS)
            first, second = self.kinds[rows].T
            unused = np.full_like(first, IGNORE)
            # Both clips' answers, the second's behind the first's: text positions 0 to 3.
            targets = np.stack([first, first * 0 + 3, second, second * 0 + 3, unused], axis=1)
            yield {
                "features": self.features[rows].astype(np.float32),
                "input_ids": np.zeros((ROWS, 5), np.int32),
                "segment_ids": np.tile(np.int32([1, 1, 2, 2, 0]), (ROWS, 1)),
                "clip_ids": np.tile(np.int32([0, 0, 1, 1, 1]), (ROWS, 1)),
                "positions": np.zeros((ROWS, 2 * TOKENS + 5), np.int32),
                "target_positions": np.tile(np.arange(5, dtype=np.int32), (ROWS, 1)),
                "target_ids": targets.astype(np.int32),
            }


def language_stage(pipeline):
    made = stage(pipeline)
    llama = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        rope_scaling=None,
        attention_bias=False,
        tie_word_embeddings=True,
    )
    tltr = TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=2)
    config = LTUASConfig(tltr=tltr, llama=llama, lora=None, audio_layers=2, audio_tokens=TOKENS)
    made.model = LTUAS.functional(config)
    made.bases = SimpleNamespace(tokenizer=Words())
    return made


def label_head(made, params, pipeline):
    """Return a head that hears the class of each clip: a logit of 3, and -3 of the others."""
    tagger = made.model.bind(params).tltr
    pooled = np.asarray(tagger.pooled_first(pipeline.features.reshape(-1, 2, TOKENS, WIDTH)))
    inputs = (pooled - pooled.mean(1, keepdims=True)) / pooled.std(1, keepdims=True)
    wanted = 6.0 * np.eye(CLASSES)[pipeline.kinds.ravel()] - 3
    bias = wanted.mean(axis=0)
    kernel = np.linalg.lstsq(inputs, wanted - bias, rcond=None)[0]
    return {
        "label_head.norm.scale": np.ones(WIDTH),
        "label_head.norm.bias": np.zeros(WIDTH),
        "label_head.kernel": kernel,
        "label_head.bias": bias,
    }


class Words:
    """Encodes "The zero" and its like: a word is a token."""

    def encode(self, text):
        return [{"The": 5, "zero": 0, "one": 1, "two": 2}[word] for word in text.split()]


NAMES = ("Zero", "One", "Two")


def test_a_fitted_projection_turns_the_audio_of_a_clip_into_the_names_of_its_labels():
    pipeline = Pairs()
    made = language_stage(pipeline)
    params = made.model.init(jax.random.key(0))
    head = label_head(made, params, pipeline)
    fitted = fitted_projection(made, params, clips=1_000, head=head, labels=NAMES)
    model = made.model.bind({**params, **fitted})
    words = np.asarray(model.embed_text(np.arange(CLASSES)[None]))[0]
    tokens = np.asarray(model.embed_audio(pipeline.features.astype(np.float32)))
    audio = tokens.reshape(4 * ROWS, 2, TOKENS, -1).mean(axis=2)
    offset, names = audio - audio.mean(axis=(0, 1)), words - words.mean(axis=0)
    nearest = np.argmax(offset @ names.T / np.linalg.norm(names, axis=1), axis=-1)
    assert np.mean(nearest == pipeline.kinds) == 1
    # They differ as much as the names do, around their mean.
    tokens = tokens.reshape(-1, tokens.shape[-1])
    np.testing.assert_allclose(tokens.var(axis=0).sum(), words.var(axis=0).sum(), rtol=1e-4)
    np.testing.assert_allclose(tokens.mean(axis=0), words.mean(axis=0), atol=1e-4)


def test_a_head_that_hears_the_same_in_all_clips_tells_a_projection_nothing_but_the_names():
    pipeline = Pairs()
    made = language_stage(pipeline)
    params = made.model.init(jax.random.key(0))
    head = label_head(made, params, pipeline) | {"label_head.kernel": np.zeros((WIDTH, CLASSES))}
    fitted = fitted_projection(made, params, clips=1_000, head=head, labels=NAMES)
    words = np.asarray(made.model.bind(params).embed_text(np.arange(CLASSES)[None]))[0]
    np.testing.assert_allclose(fitted["audio_proj.kernel"], 0, atol=1e-9)
    np.testing.assert_allclose(fitted["audio_proj.bias"], words.mean(axis=0), atol=1e-6)


def test_what_the_head_is_sure_not_to_hear_makes_no_difference():
    pipeline = Pairs()
    made = language_stage(pipeline)
    params = made.model.init(jax.random.key(0))
    head = label_head(made, params, pipeline)
    never = np.array([0.0, 0.0, 1.0])  # the third label has logits of -13 to -7
    head |= {"label_head.bias": head["label_head.bias"] - 10 * never}
    deaf = head | {"label_head.kernel": head["label_head.kernel"] * (1 - never)}
    one, other = (
        fitted_projection(made, params, clips=1_000, head=given, labels=NAMES)
        for given in (head, deaf)
    )
    assert np.abs(one["audio_proj.kernel"]).max() > 0
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])
