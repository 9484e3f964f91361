"""Stored features are the numbers of the step, and features of another encoder are refused."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
import soundfile

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import record_files
from data_pipelines.records.whisper_features import FeatureExtractor, fingerprint
from data_pipelines.records.write import write_records
from ltu_jax.core.errors import UserError
from ltu_jax.models.whisper import Encoder, Whisper, WhisperConfig
from ltu_jax.preprocessing import audio
from ltu_jax.weights.fingerprint import KEY, FeatureWarning, Fingerprint, compare, of_encoder
from ltu_jax.weights.store import load_weights, save_weights

CONFIG = WhisperConfig(
    n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=3,
    n_vocab=50, n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "whisper-random"
    params = Whisper(CONFIG).init(jax.random.key(0))
    save_weights(
        path,
        kind="whisper",
        config=dataclasses.asdict(CONFIG),
        params={name: np.asarray(leaf) for name, leaf in params.items()},
        source={},
    )
    return path


@pytest.fixture(scope="module")
def with_features(clips, whisper_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("featured") / "records"
    write_records(clips, out, extractor=FeatureExtractor(whisper_dir), shards=2)
    return out


def _pipeline(directory, **changes):
    config = dict(
        records=str(directory), split="train", layout="grouped", cutoff=64, pairs_per_clip=2,
        clips_per_row=1, rows_per_batch=4, train_on="all", features="stored", seed=0,
        audio_tokens=25, n_mels=80,
    )  # fmt: skip
    return config | changes


def test_stored_features_are_those_of_the_step(
    with_features, records_dir, clips, whisper_dir, tokenizer
):
    features = Whisper(CONFIG).encoder.pure(Encoder.features)
    params = dict(load_weights(whisper_dir).params)
    stored = InputPipeline(DataConfig(**_pipeline(with_features)), tokenizer=tokenizer)
    heard = InputPipeline(
        DataConfig(**_pipeline(records_dir, features="on_the_fly")), tokenizer=tokenizer
    )
    by_id = {clip.clip_id: clip for clip in clips}
    for step, batch in enumerate(stored.batches(steps=2)):
        assert batch["features"].shape == (4, 3, 25, 16) and batch["features"].dtype == np.float32
        other = heard.batch(step)
        # The same step on log-mel instead: same rows, same text, same numbers.
        np.testing.assert_array_equal(batch["input_ids"], other["input_ids"])
        computed = jax.jit(features)(params, other["log_mel"])
        np.testing.assert_allclose(batch["features"], computed, rtol=0, atol=5e-5)
        clip, _ = stored.contents(4 * step)[0]
        samples, _ = soundfile.read(by_id[clip].audio, dtype="float32")
        direct = features(params, audio.model_log_mel(samples, n_mels=80).log_mel[None])
        np.testing.assert_allclose(batch["features"][0], direct[0], rtol=0, atol=5e-5)
        for name, values in stored.batch(step).items():
            np.testing.assert_array_equal(batch[name], values)


def test_the_manifest_says_which_encoder_made_them(with_features, whisper_dir, tokenizer):
    weights = load_weights(whisper_dir)
    name = fingerprint(whisper_sha256=weights.sha256, dtype="float32")
    stored = record_files.read_manifest(with_features)["features"]
    assert stored["fingerprint"] == name and stored["shape"] == [3, 25, 16]
    InputPipeline(
        DataConfig(**_pipeline(with_features, feature_fingerprint=name)), tokenizer=tokenizer
    )
    others = [
        fingerprint(whisper_sha256="0" * 64, dtype="float32"),
        fingerprint(whisper_sha256=weights.sha256, dtype="bfloat16"),
    ]
    for other in others:
        config = DataConfig(**_pipeline(with_features, feature_fingerprint=other))
        with pytest.raises(UserError, match=f"have fingerprint {name[:12]}.*needs {other[:12]}"):
            InputPipeline(config, tokenizer=tokenizer)


def test_other_files_and_precisions_of_the_encoder(with_features, whisper_dir, tokenizer, capsys):
    stored = record_files.read_manifest(with_features)["features"]
    weights = load_weights(whisper_dir)
    kept = Fingerprint.from_json(stored[KEY])
    assert compare(kept, of_encoder(weights, dtype="float32")).distance < 1e-5
    name = fingerprint(whisper_sha256="0" * 64, dtype="float32")
    config = DataConfig(**_pipeline(with_features, feature_fingerprint=name))

    def opened(measured, **where):
        return InputPipeline(
            config, tokenizer=tokenizer, clip_fingerprint=lambda: measured, **where
        )

    opened(of_encoder(weights, dtype="float32"))
    assert "another file of the same encoder (whisper-random)" in capsys.readouterr().out
    with pytest.warns(FeatureWarning, match="another encoder or precision: those in .*float32"):
        opened(of_encoder(weights, dtype="bfloat16"))
    with warnings.catch_warnings():  # one host speaks for all
        warnings.simplefilter("error")
        opened(of_encoder(weights, dtype="bfloat16"), process_index=1, process_count=2)
    other = tuple(tuple(-value for value in group) for group in kept.values)
    with pytest.raises(UserError, match=f"needs {name[:12]}, and on a fixed clip .* differ by 2.0"):
        opened(dataclasses.replace(kept, values=other))
    same = fingerprint(whisper_sha256=weights.sha256, dtype="float32")
    named = dataclasses.replace(config, feature_fingerprint=same)
    InputPipeline(named, tokenizer=tokenizer, clip_fingerprint=None)
    assert not capsys.readouterr().out


def test_the_extractor_works_in_batches_of_one_shape(whisper_dir):
    windows = list(np.random.default_rng(0).normal(size=(5, 1000, 80)).astype(np.float32))
    extractor = FeatureExtractor(whisper_dir, batch_size=2)
    encoder = Whisper(CONFIG).encoder.bind(dict(load_weights(whisper_dir).params))
    found = extractor(windows)
    np.testing.assert_allclose(found, encoder.features(np.stack(windows)), rtol=0, atol=5e-5)
    windows[3] = np.full_like(windows[3], np.nan)
    with pytest.raises(UserError, match="features of clip 3 of the batch are not finite"):
        extractor(windows)


def test_an_encoder_that_is_not_there_is_named(clips, tmp_path):
    with pytest.raises(UserError, match="no-whisper does not exist"):
        write_records(clips, tmp_path / "out", extractor=FeatureExtractor(tmp_path / "no-whisper"))
