"""A checkpoint opened with another file, precision or make of its Whisper says so, or refuses."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

import ltu_jax
from ltu_jax import checkpoint
from ltu_jax.checkpoint.integrity import SEAL
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file
from ltu_jax.generation.transcription import RULES
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Encoder, Whisper, WhisperConfig
from ltu_jax.preprocessing.audio import model_log_mel
from ltu_jax.training.state import TrainState
from ltu_jax.weights import fingerprint as fp
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.open import base_entry
from ltu_jax.weights.store import load_weights, save_weights

WHISPER = WhisperConfig(
    n_mels=80, n_audio_ctx=500, n_audio_state=16, n_audio_head=2, n_audio_layer=2, n_vocab=50,
    n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip
CONFIG = LTUASConfig(
    tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=2),
    llama=LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6,
        rope_theta=1e4, rope_scaling=None, tie_word_embeddings=True, attention_bias=False,
    ),
    lora=None,
    audio_layers=2,
    audio_tokens=25,
)  # fmt: skip


def saved_whisper(folder, *, seed, dtype=np.float32):
    """Random weights that float16 holds exactly."""
    made = Whisper(WHISPER).init(jax.random.key(seed))
    params = {path: np.asarray(leaf).astype(np.float16).astype(dtype) for path, leaf in
              made.items()}  # fmt: skip
    save_weights(
        folder, kind="whisper", config=dataclasses.asdict(WHISPER), params=params, source={}
    )
    return load_weights(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run over a Whisper, another file of that Whisper, and another Whisper."""
    folder = tmp_path_factory.mktemp("place")
    whisper = saved_whisper(folder / "whisper", seed=0)
    saved_whisper(folder / "half", seed=0, dtype=np.float16)
    saved_whisper(folder / "other", seed=1)
    params = LTUAS.functional(CONFIG).init(jax.random.key(2))
    base = {path: np.asarray(leaf) for path, leaf in params.items() if not is_adapter(path)}
    llama = dataclasses.asdict(CONFIG.llama)
    save_weights(folder / "llama", kind="llama", config=llama, params=base, source={})
    adapter = {path: leaf for path, leaf in params.items() if is_adapter(path)}
    run = folder / "run"
    step = run / "checkpoints" / "1"
    held = {"llama": load_weights(folder / "llama"), "whisper": whisper}
    checkpoint.save(
        run,
        state=TrainState(step=jax.numpy.int32(1), trainable=adapter, opt_state={}),
        adapter=adapter,
        metadata={
            "kind": "ltu-as-checkpoint",
            "stage": "stage1",
            "model": dataclasses.asdict(CONFIG),
            "base": {name: base_entry(held[name], relative_to=step) for name in held},
        },
        keep=1,
    )
    return folder


@pytest.fixture
def trained_with(place):
    """Write (or take away) the numeric fingerprint of the checkpoint."""
    file = place / "run" / "checkpoints" / "1" / checkpoint.METADATA
    before = file.read_text()

    def sealed(text):
        file.write_text(text)
        file.with_name(SEAL).write_text(f"{sha256_file(file)}  {file.name}\n")

    def write(dtype):
        found = fp.of_encoder(load_weights(place / "whisper"), dtype=dtype)
        sealed(json.dumps(json.loads(before) | {fp.KEY: found.to_json()}))

    yield write
    sealed(before)


def silently(place, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("error", fp.FeatureWarning)
        return ltu_jax.load(place / "run", **given)


def test_the_same_whisper_is_not_measured(place, trained_with, monkeypatch):
    trained_with("float32")
    monkeypatch.setattr("ltu_jax.weights.open_whispers.of_encoder", None)
    assert silently(place).listener is not None
    assert silently(place, whisper=place / "whisper").listener is not None


def test_another_file_of_the_same_encoder_is_taken(place, trained_with):
    trained_with("float32")
    model = silently(place, whisper=place / "half")
    samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    np.testing.assert_array_equal(
        model.audio_features(samples), silently(place).audio_features(samples)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("given", ["whisper", "half"])
def test_features_have_the_precision_of_training(place, trained_with, dtype, given):
    trained_with(dtype)
    samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    found = silently(place, whisper=place / given).audio_features(samples)
    log_mel = model_log_mel(samples, n_mels=WHISPER.n_mels, frames=1000).log_mel[None]
    params = dict(load_weights(place / given).params)
    encoder = {path: leaf for path, leaf in params.items() if path.startswith("encoder.")}
    each = {
        name: np.asarray(
            jax.jit(Whisper(WHISPER, dtype=name).encoder.pure(Encoder.features))(encoder, log_mel)[
                0
            ]
        )
        for name in ("float32", "bfloat16")
    }
    np.testing.assert_allclose(found, each.pop(dtype), rtol=1e-6, atol=1e-6)
    (other,) = each.values()
    assert np.abs(found - other).max() > 1e-3


def test_another_encoder_is_refused(place, trained_with):
    trained_with("float32")
    with pytest.raises(UserError, match="other is not the Whisper that .* differ by [0-9.]+e"):
        ltu_jax.load(place / "run", whisper=place / "other")


def test_a_checkpoint_without_fingerprint_wants_the_file(place):
    assert silently(place).listener is not None
    with pytest.raises(UserError, match="half is not the Whisper that"):
        ltu_jax.load(place / "run", whisper=place / "half")


def test_a_checkpoint_names_the_whisper_that_writes_and_its_rule(place, whisper_tiny_files):
    """It hears with its own encoder; both can be overruled when it is loaded."""
    file = place / "run" / "checkpoints" / "1" / checkpoint.METADATA
    before = file.read_text()
    metadata = json.loads(before)
    writer = load_weights(whisper_tiny_files)
    metadata["base"]["transcriber"] = base_entry(writer, relative_to=file.parent)
    metadata["transcription"] = "openai"
    try:
        file.write_text(json.dumps(metadata))
        file.with_name(SEAL).write_text(f"{sha256_file(file)}  {file.name}\n")
        model = silently(place)
        assert model.transcriber.whisper.config.n_audio_state == 384
        assert model.listener.whisper.config.n_audio_state == CONFIG.tltr.d_model
        assert model.rule == RULES["openai"]
        assert silently(place, transcription="quiet").rule == RULES["quiet"]
    finally:
        file.write_text(before)
        file.with_name(SEAL).write_text(f"{sha256_file(file)}  {file.name}\n")
