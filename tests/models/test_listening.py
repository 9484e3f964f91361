"""What was listened to: attention weights against live PyTorch, transformers and plain softmax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from test_attention import HEADS, case
from test_llama_model import make
from test_ltu_as_model import AUDIO, CONFIG, features, noisy, plain, tokens

from ltu_jax.models.layers import attend, attention_weights
from ltu_jax.models.listening import audio_heard, layers_heard
from ltu_jax.models.ltu_as import LTUAS


def test_the_weights_are_a_softmax_over_what_is_seen():
    (q, k, _), visible, _ = case(0, audio=4)
    got = attention_weights(q, k, visible=visible, scale=0.4)
    groups = HEADS // k.shape[1]
    for row, head, time in np.ndindex(len(q), HEADS, q.shape[1]):
        scores = 0.4 * k[row, head // groups].astype(np.float64) @ q[row, time, head]
        seen = visible[row, time]
        weights = np.exp(scores) * seen if seen.any() else np.ones_like(scores)
        np.testing.assert_allclose(got[row, head, time], weights / weights.sum(), atol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_compiles_to_the_program_written_in_one_piece(masked):
    (q, k, v), visible, _ = case(1, audio=4)
    visible = jnp.asarray(visible) if masked else None

    def one_piece(q, k, v, visible):
        batch, time, heads, size = q.shape
        kv_heads, keys = k.shape[1:3]
        groups = heads // kv_heads
        q = q.reshape(batch, time, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
        q = q.reshape(batch, kv_heads, groups * time, size)
        scores = jnp.einsum("BKTH,BKSH->BKTS", q, k, preferred_element_type=jnp.float32) * 0.4
        if visible is not None:
            scores = scores.reshape(batch, kv_heads, groups, time, keys)
            scores = jnp.where(visible[:, None, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        weights = weights.reshape(batch, kv_heads, groups * time, keys)
        mixed = jnp.einsum("BKTS,BKSH->BKTH", weights, v)
        mixed = mixed.reshape(batch, kv_heads, groups, time, size).transpose(0, 3, 1, 2, 4)
        return mixed.reshape(batch, time, heads * size)

    def ours(q, k, v, visible):
        return attend(q, k, v, visible=visible, scale=0.4)

    programs = [jax.jit(fn).lower(q, k, v, visible).as_text() for fn in (one_piece, ours)]
    assert programs[0].replace("one_piece", "ours") == programs[1]


def test_layers_are_the_attention_of_pytorch():
    fns = LTUAS.functional(CONFIG)
    params, heard = noisy(fns.shapes), features(2)
    got = jax.jit(fns.pure(layers_heard))(params, heard)
    states = jax.jit(fns.pure(LTUAS.intermediates))(params, plain(tokens(2, 2)), heard)["time_tr"]
    x = torch.from_numpy(np.array(states)).transpose(1, 2).reshape(2 * AUDIO, 3, 24)
    block = {
        name.removeprefix("tltr.layer_tr."): torch.from_numpy(np.array(leaf))
        for name, leaf in params.items()
        if name.startswith("tltr.layer_tr.")
    }
    x = torch.nn.functional.layer_norm(x, (24,), block["attn_ln.scale"], block["attn_ln.bias"])
    attention = torch.nn.MultiheadAttention(24, CONFIG.tltr.layer_heads, batch_first=True)
    kernels = [block[f"attn.{name}.kernel"].T for name in ("query", "key", "value")]
    biases = [block["attn.query.bias"], torch.zeros(24), block["attn.value.bias"]]
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat(kernels))
        attention.in_proj_bias.copy_(torch.cat(biases))
        want = attention(x, x, x, need_weights=True)[1].mean(1).reshape(2, AUDIO, 3)
    np.testing.assert_allclose(got, want.numpy(), atol=1e-6)


@pytest.mark.parametrize("family", ["llama1", "qwen2"])
def test_audio_is_the_attention_of_transformers(family):
    theirs, alone, llama = make(family)
    fns = LTUAS.functional(dataclasses.replace(CONFIG, llama=alone.config, lora=None))
    params = noisy(fns.shapes) | llama
    heard, ids = features(2), tokens(2, 9)
    got = jax.jit(fns.pure(audio_heard))(params, plain(ids), heard)
    audio = torch.from_numpy(np.array(fns.bind(params).embed_audio(heard)))
    with torch.no_grad():
        embedded = torch.cat([audio, theirs.get_input_embeddings()(torch.from_numpy(ids))], 1)
        maps = theirs(inputs_embeds=embedded, output_attentions=True).attentions
    want = torch.stack(maps).mean((0, 2))[:, AUDIO:, :AUDIO]
    want = want / want.sum(-1, keepdim=True)
    np.testing.assert_allclose(got, want.numpy(), atol=2e-5)
