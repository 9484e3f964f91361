"""TLTR at full size (32 x 25 x 1280), and the tagger's graph against a plain PyTorch one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ltu_jax.core.trees import count
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from tests.support.official_names import from_official

pytestmark = pytest.mark.optimised


def recipe(config):
    """Weights and inputs as the recipe in config.json makes them."""
    weights = {}
    for i, name in enumerate(sorted(config["state_dict_shapes"])):
        shape = config["state_dict_shapes"][name]
        rng = np.random.default_rng([config["seed"], i])
        weights[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        if name.endswith("ln.weight"):
            weights[name] += np.float32(1.0)
    rng = np.random.default_rng([config["seed"], 10**6])
    x = rng.standard_normal((config["batch"], 32, 25, 1280), dtype=np.float32)
    scale = np.float32(0.25) + np.float32(0.05) * np.arange(32, dtype=np.float32)
    return weights, x * scale[None, :, None, None]


def test_full_size(golden):
    config = json.loads((golden / "tltr_full" / "config.json").read_text())
    want = np.load(golden / "tltr_full" / "outputs.npz")
    weights, features = recipe(config)
    for name, check in config["weight_check"].items():
        np.testing.assert_allclose(weights[name].ravel()[:3], check["first3"], rtol=1e-6)
    fns = LTUAS.functional(
        LTUASConfig(
            tltr=TLTRConfig(d_model=1280, time_heads=1, layer_heads=8),
            llama=LlamaConfig(
                vocab_size=8,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=8,
                rms_norm_eps=1e-6,
                rope_theta=1e4,
                rope_scaling=None,
                tie_word_embeddings=True,
                attention_bias=False,
            ),
            lora=None,
            audio_layers=32,
            audio_tokens=25,
        )
    )
    params = dict(fns.init(jax.random.key(0)))
    params |= from_official({f"model.audio_encoder.{n}": w for n, w in weights.items()})
    tltr = {name: leaf for name, leaf in params.items() if name.startswith("tltr.")}
    assert count(tltr) == config["n_params"] == 39_352_320

    batch = features.shape[0]
    text = TextBatch(
        input_ids=jnp.zeros((batch, 1), jnp.int32),
        segment_ids=jnp.ones((batch, 1), jnp.int32),
        positions=jnp.zeros((batch, 26), jnp.int32),
    )
    mid = jax.jit(fns.pure(LTUAS.intermediates))(params, text, jnp.asarray(features))
    out, time_tr, layer_tr = (np.asarray(mid[n]) for n in ("tltr", "time_tr", "layer_tr"))
    layers = want["time_tr_layers"]
    pairs = {
        "out_first8": out[..., :8],
        "out_last8": out[..., -8:],
        "time_tr_first8": time_tr[:, layers, :, :8],
        "layer_tr_first8": layer_tr[:, :, layers, :8],
    }
    for name, got in pairs.items():
        np.testing.assert_allclose(got, want[name], rtol=0, atol=5e-6, err_msg=name)
    # Sums of n values, each within 5e-6: random signs leave far less than n times that.
    sums = {
        "out_sum64": out.sum(-1, dtype=np.float64),
        "out_abs_sum64": np.abs(out).sum(-1, dtype=np.float64),
        "time_tr_sum64": time_tr.sum((2, 3), dtype=np.float64),
        "layer_tr_sum64": layer_tr.sum((2, 3), dtype=np.float64),
    }
    for name, got in sums.items():
        np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=2e-3, err_msg=name)


def torch_block(params, prefix, x, heads):
    """A Whisper block written from its definition with PyTorch operations."""

    def at(name):
        return torch.from_numpy(np.array(params[f"{prefix}.{name}"]))

    def norm(name, x):
        scale, bias = at(f"{name}.scale"), at(f"{name}.bias")
        return torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, 1e-5)

    def split(x):
        return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)

    h = norm("attn_ln", x)
    q = split(h @ at("attn.query.kernel") + at("attn.query.bias"))
    k = split(h @ at("attn.key.kernel"))
    v = split(h @ at("attn.value.kernel") + at("attn.value.bias"))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    mixed = mixed.transpose(1, 2).reshape(x.shape)
    x = x + mixed @ at("attn.out.kernel") + at("attn.out.bias")
    h = torch.nn.functional.gelu(norm("mlp_ln", x) @ at("mlp.up.kernel") + at("mlp.up.bias"))
    return x + h @ at("mlp.down.kernel") + at("mlp.down.bias")


def test_tagger_takes_the_mean_over_time_before_the_layer_block():
    batch, layers, tokens, size, labels = 2, 5, 7, 16, 11
    tltr = TLTRConfig(d_model=size, time_heads=2, layer_heads=4)
    fns = Tagger.functional(TaggerConfig(tltr=tltr, labels=labels, d_input=None, audio_layers=None))
    params = fns.init(jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), len(params))
    params = {
        name: leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for key, (name, leaf) in zip(keys, params.items(), strict=True)
    }
    rng = np.random.default_rng(3)
    features = rng.standard_normal((batch, layers, tokens, size), dtype=np.float32)
    got = jax.jit(fns.pure(Tagger.__call__))(params, features)

    x = torch.from_numpy(features).reshape(batch * layers, tokens, size)
    x = torch_block(params, "tltr.time_tr", x, 2).mean(1).reshape(batch, layers, size)
    x = torch_block(params, "tltr.layer_tr", x, 4).mean(1)
    head = {n: torch.from_numpy(np.array(params[f"label_head.{n}"])) for n in ("kernel", "bias")}
    norm = [torch.from_numpy(np.array(params[f"label_head.norm.{n}"])) for n in ("scale", "bias")]
    x = torch.nn.functional.layer_norm(x, (size,), *norm, 1e-5) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(got, x.numpy(), rtol=1e-5, atol=1e-5)
    assert got.shape == (batch, labels)
