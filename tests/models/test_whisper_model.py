"""Whisper against the golden states of the official code and against live transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from ltu_jax.core.errors import UserError
from ltu_jax.models.whisper import Decoder, Encoder, Whisper, WhisperConfig, sinusoids
from tests.support.official_names import arrays, from_hf_whisper, from_official

CLIPS = ("jfk", "silence_2s", "short_0.1s", "exact_10s")


@pytest.fixture(scope="module")
def golden_model(golden):
    folder = golden / "whisper_tiny_random"
    config = WhisperConfig.from_dict(json.loads((folder / "config.json").read_text())["dims"])
    return Whisper(config), from_official(load_file(folder / "weights.safetensors"))


@pytest.mark.parametrize("clip", CLIPS)
def test_states_and_features_equal_the_official_ones(golden, golden_model, clip):
    fns, params = golden_model
    data = np.load(golden / "whisper_tiny_random" / f"{clip}.npz")
    log_mel = jnp.asarray(data["log_mel_1000"].T)[None]
    states = np.asarray(jax.jit(fns.encoder.pure(Encoder.states))(params, log_mel))[0]
    got, want = (
        (states, data["states"]) if "states" in data else (states[:, ::50], data["states_every50"])
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-5)
    features = jax.jit(fns.encoder.pure(Encoder.features))(params, log_mel)
    assert features.shape == (1, 3, 25, 64)
    np.testing.assert_allclose(features[0], data["features"], rtol=0, atol=5e-5)


def test_features_of_several_clips_a_row_are_those_of_each(golden, golden_model):
    fns, params = golden_model
    folder = golden / "whisper_tiny_random"
    heard = np.stack([np.load(folder / f"{clip}.npz")["log_mel_1000"].T for clip in CLIPS])
    whole = jax.jit(fns.encoder.pure(Encoder.features))(params, jnp.asarray(heard))
    rows = jax.jit(fns.encoder.pure(Encoder.features))(
        params, jnp.asarray(heard.reshape(2, 2, *heard.shape[1:]))
    )
    assert rows.shape == (2, 2, 3, 25, 64)
    np.testing.assert_allclose(rows.reshape(whole.shape), whole, rtol=0, atol=1e-6)


def test_positions_are_whispers_sinusoids(golden_model):
    _, params = golden_model
    # The official table rounds angles of up to 1,500 radians to float32, a step of 1.2e-4.
    np.testing.assert_allclose(sinusoids(1500, 64), params["encoder.positions"], atol=1.3e-4)


@pytest.fixture(scope="module")
def pair():
    """A random tiny Whisper of transformers, and ours with its weights."""
    torch.manual_seed(0)
    hf_config = transformers.WhisperConfig(
        vocab_size=97,
        num_mel_bins=12,
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=128,
        max_source_positions=30,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        attn_implementation="eager",
    )
    model = transformers.WhisperForConditionalGeneration(hf_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = WhisperConfig(
        n_mels=12,
        n_audio_ctx=30,
        n_audio_state=32,
        n_audio_head=4,
        n_audio_layer=3,
        n_vocab=97,
        n_text_ctx=20,
        n_text_state=32,
        n_text_head=2,
        n_text_layer=2,
    )
    params = from_hf_whisper(arrays(model))
    fns = Whisper(config)
    assert {n: v.shape for n, v in params.items()} == {n: s.shape for n, s in fns.shapes.items()}
    return model, fns, params


@pytest.fixture(scope="module")
def mel():
    return np.random.default_rng(0).standard_normal((2, 60, 12), dtype=np.float32)


def test_encoder_equals_transformers(pair, mel):
    model, fns, params = pair
    with torch.no_grad():
        want = model.model.encoder(torch.from_numpy(mel).mT, output_hidden_states=True)
    encoded = jax.jit(fns.encoder.pure(Encoder.encode))(params, mel)
    np.testing.assert_allclose(encoded, want.last_hidden_state, rtol=1e-5, atol=1e-5)
    states = np.asarray(jax.jit(fns.encoder.pure(Encoder.states))(params, mel))
    assert states.shape == (2, 4, 30, 32)
    # transformers normalises the last of its hidden states; the ones before are raw.
    for layer in range(3):
        np.testing.assert_allclose(
            states[:, layer], want.hidden_states[layer], rtol=1e-5, atol=1e-5
        )


def test_decoder_equals_transformers_at_once_and_token_by_token(pair, mel):
    model, fns, params = pair
    tokens = np.random.default_rng(1).integers(0, 97, (2, 11)).astype(np.int32)
    with torch.no_grad():
        want = model(
            torch.from_numpy(mel).mT, decoder_input_ids=torch.from_numpy(tokens).long()
        ).logits.numpy()
    encoded = jax.jit(fns.encoder.pure(Encoder.encode))(params, mel)
    decode = jax.jit(fns.decoder.pure(Decoder.decode))
    cache = fns.decoder.bind(params).init_cache(encoded, length=20)
    at_once, _ = decode(params, tokens, cache)
    np.testing.assert_allclose(at_once, want, rtol=0, atol=2e-5)
    assert at_once.dtype == jnp.float32
    logits, cache = decode(params, tokens[:, :4], cache)
    parts = [logits]
    for step in range(4, 11):
        logits, cache = decode(params, tokens[:, step : step + 1], cache)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), want, rtol=0, atol=2e-5)
    assert int(cache.length) == 11


def test_half_the_parameters_are_enough_for_each_half(pair, mel):
    _, fns, params = pair
    encoder = {name: leaf for name, leaf in params.items() if name.startswith("encoder.")}
    decoder = {name: leaf for name, leaf in params.items() if name.startswith("decoder.")}
    bound = fns.decoder.bind(decoder)
    cache = bound.init_cache(fns.encoder.bind(encoder).encode(mel), length=3)
    assert bound.decode(jnp.zeros((2, 1), jnp.int32), cache)[0].shape == (2, 1, 97)


@pytest.mark.parametrize(
    "frames, mels, message",
    [(62, 12, "62 frames"), (59, 12, "59 frames"), (60, 13, "13 bins")],
)
def test_wrong_log_mel_is_named(pair, frames, mels, message):
    _, fns, params = pair
    with pytest.raises(UserError, match=message):
        fns.encoder.bind(params).encode(jnp.zeros((1, frames, mels)))


def test_features_need_whole_audio_tokens(pair):
    _, fns, params = pair
    with pytest.raises(UserError, match="multiple of 40"):
        fns.encoder.bind(params).features(jnp.zeros((1, 60, 12)))


def test_cache_longer_than_the_positions_is_refused(pair, mel):
    _, fns, params = pair
    encoded = fns.encoder.bind(params).encode(mel)
    with pytest.raises(UserError, match="21 tokens"):
        fns.decoder.bind(params).init_cache(encoded, length=21)
