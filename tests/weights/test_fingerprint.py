"""The numeric fingerprint: float noise, precision and another encoder are told apart."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ltu_jax.models.whisper import Encoder, Whisper, WhisperConfig
from ltu_jax.preprocessing import audio
from ltu_jax.weights import fingerprint as fp
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError

CONFIG = WhisperConfig(
    n_mels=80, n_audio_ctx=500, n_audio_state=16, n_audio_head=2, n_audio_layer=3, n_vocab=50,
    n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


def features(params, config, *, dtype="float32", batch=1, noise=0.0):
    """W x A x D of the clip, computed apart from `of_encoder`."""
    log_mel = audio.model_log_mel(fp.clip(), n_mels=config.n_mels).log_mel
    log_mel = log_mel + noise * np.random.default_rng(0).standard_normal(log_mel.shape)
    rows = np.repeat(np.asarray(log_mel, np.float32)[None], batch, axis=0)
    return np.asarray(
        jax.jit(Whisper(config, dtype=dtype).encoder.pure(Encoder.features))(params, rows)[-1]
    )


@pytest.fixture(scope="module")
def tiny(whisper_tiny_dir):
    """Whisper tiny.en: (weights, config, encoder parameters float32)."""
    weights = load_weights(whisper_tiny_dir, kind="whisper")
    params = {
        path: np.asarray(weights.params[path], np.float32)
        for path in weights.params
        if path.startswith("encoder.")
    }
    return weights, WhisperConfig.from_dict(weights.config), params


def test_the_clip_is_the_same_everywhere():
    # SplitMix64 of the counters 0, 1, 2: the first numbers of its published generator with seed 0
    first = (np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], np.uint64)
             >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1  # fmt: skip
    assert fp.random_numbers(1)[0] == first[0]
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        counters = golden * np.arange(3, dtype=np.uint64)
    numbers = (fp._mixed(counters) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    np.testing.assert_array_equal(numbers, first)
    samples = fp.clip()
    assert samples.shape == (160_000,) and samples.dtype == np.float32
    assert np.abs(samples).max() < 1 and not samples[-8000:].any()
    t = 1234 / 16_000
    wanted = 0.3 * np.sin(2 * np.pi * (80 * t + 1250 * t**2)) + 1e-3 * fp.random_numbers(1235)[-1]
    assert samples[1234] == np.float32(wanted)


def test_float_noise_is_the_same_encoder(tiny):
    weights, config, params = tiny
    stored = fp.of_encoder(weights, dtype="float32")
    for changes in ({"batch": 3}, {"noise": 1e-6}):
        found = fp.of_features(features(params, config, **changes), dtype="float32")
        compared = fp.compare(stored, found)
        assert compared.verdict == fp.Likeness.SAME and compared.distance < 1e-5
        assert found.code == stored.code
    eager = Whisper(config).encoder.pure(Encoder.features)
    log_mel = audio.model_log_mel(fp.clip(), n_mels=80).log_mel[None]
    unjitted = fp.of_features(np.asarray(eager(params, log_mel)[0]), dtype="float32")
    assert fp.compare(stored, unjitted).distance < 1e-5


@pytest.mark.parametrize("dtype, low, high", [("float16", 3e-4, 4e-3), ("bfloat16", 4e-3, 3e-2)])
def test_another_precision(tiny, dtype, low, high):
    weights, config, params = tiny
    full, half = (fp.of_encoder(weights, dtype=name) for name in ("float32", dtype))
    compared = fp.compare(full, half)
    assert compared.verdict == fp.Likeness.PRECISION and low < compared.distance < high
    assert fp.compare(half, full) == compared
    # two of the same precision: its own noise is no difference
    noisy = fp.of_features(features(params, config, dtype=dtype, noise=1e-5), dtype=dtype)
    assert fp.compare(half, noisy).verdict == fp.Likeness.SAME
    line = compared.warning(there="those in records", here="these")
    assert line.startswith("features were computed by another encoder or precision: those in rec")
    assert "same encoder, another precision" in line


def _last_layer(path, value, noise):
    value = value.copy()
    if ".blocks." in path:
        value[-1] *= 1 + 0.1 * noise[-1]
    return value


def _fine_tuned(path, value, noise):
    return value * (1 + 0.02 * noise)


def _no_mlp(path, value, noise):
    value = value.copy()
    if path.endswith("mlp.down.kernel"):
        value[1] = 0
    return value


@pytest.mark.parametrize("change", [_last_layer, _fine_tuned, _no_mlp])
def test_other_weights(tiny, change):
    weights, config, params = tiny
    rng = np.random.default_rng(1)
    other = {
        path: change(path, value, rng.standard_normal(value.shape)).astype(np.float32)
        for path, value in params.items()
    }
    found = fp.of_features(features(other, config), dtype="float32")
    compared = fp.compare(fp.of_encoder(weights, dtype="float32"), found)
    assert compared.verdict == fp.Likeness.OTHER and compared.distance > fp.PRECISION


def _saved(path, config, *, seed=0):
    params = Whisper(config).init(jax.random.key(seed))
    save_weights(path, kind="whisper", config=dataclasses.asdict(config), source={},
                 params={name: np.asarray(leaf) for name, leaf in params.items()})  # fmt: skip
    return load_weights(path)


def test_another_whisper(tmp_path):
    first = fp.of_encoder(_saved(tmp_path / "a", CONFIG), dtype="float32")
    assert len(first.values) == 3 and first.shape == (3, 25, 16) and len(first.code) == 12
    other = fp.of_encoder(_saved(tmp_path / "b", CONFIG, seed=1), dtype="float32")
    assert fp.compare(first, other).verdict == fp.Likeness.OTHER
    wider = dataclasses.replace(CONFIG, n_audio_layer=2)
    size = fp.of_encoder(_saved(tmp_path / "c", wider), dtype="float32")
    assert fp.compare(first, size).distance == float("inf")
    broken = dataclasses.replace(first, values=((float("nan"),) * 16,) * 3)
    assert fp.compare(first, broken).verdict == fp.Likeness.OTHER


def test_it_is_computed_once_and_survives_json(tmp_path, monkeypatch):
    weights = _saved(tmp_path / "a", CONFIG)
    found = fp.of_encoder(weights, dtype="float32")
    monkeypatch.setattr(fp, "Whisper", None)
    assert fp.of_encoder(weights, dtype="float32") is found
    entry = json.loads(json.dumps(found.to_json()))
    assert fp.Fingerprint.from_json(entry) == found
    assert fp.Fingerprint.from_json(entry | {"version": 0}) is None
    assert fp.Fingerprint.from_json(None) is None


def test_a_short_encoder(tmp_path):
    short = dataclasses.replace(CONFIG, n_audio_ctx=30)
    found = fp.of_encoder(_saved(tmp_path / "a", short), dtype="float32")
    assert found.shape == (3, 1, 16)
    with pytest.raises(WeightsError, match="hears 10 encoder steps; an audio token needs 20"):
        shorter = dataclasses.replace(CONFIG, n_audio_ctx=10)
        fp.of_encoder(_saved(tmp_path / "b", shorter), dtype="float32")
