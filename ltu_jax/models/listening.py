"""What the model listened to: the weights of two attentions, by the modules that compute them.

Which Whisper layers the layer transformer reads at each audio token, and how much each position of
the text attends to each audio token. Both are means over heads; they show where numbers came from,
not why an answer was given.
"""

import jax.numpy as jnp

from ltu_jax.core.axes import Array, Float
from ltu_jax.models.layers import attention_weights
from ltu_jax.models.llama import Layer, Llama
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.precision import in_own_precision
from ltu_jax.models.stacks import scan_layers
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import TLTR


@in_own_precision
def layers_heard(model: LTUAS, features: Float[Array, "B *G W A D"]) -> Float[Array, "B A W"]:
    """Return the weight of each Whisper layer at each audio token; they sum to 1 over the layers.

    Mean over heads and queries of the layer transformer's attention; clips of a row one after
    another.
    """
    weights = _over_layers(model.tltr, features.reshape(-1, *features.shape[-3:]))
    return weights.reshape(len(features), -1, weights.shape[-1])


@in_own_precision
def audio_heard(
    model: LTUAS, text: TextBatch, features: Float[Array, "B *G W A D"]
) -> Float[Array, "B T A"]:
    """Return how each text position's attention to audio lies over the audio tokens.

    Mean over layers and heads of the language model's attention, of which the part that is on
    audio is scaled to the sum 1. All text stands behind all clips of its row.
    """
    audio = model.embed_audio(features)
    tokens = audio.shape[1]
    x = jnp.concatenate([audio, model.embed_text(text.input_ids)], axis=1)
    weights = _to_keys(model.llama, x, text=text, keys=tokens)[:, tokens:]
    # A row that has no weight on audio, to the last bit, stays zeros.
    return weights / jnp.maximum(weights.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)


def _over_layers(tltr: TLTR, features: Array) -> Array:
    x = tltr.over_time(features).swapaxes(1, 2)
    block = tltr.layer_tr
    weights = block.attn.weights(block.attn_ln(x.reshape(-1, *x.shape[2:])))
    return weights.mean((1, 2)).reshape(x.shape[:3])


def _to_keys(llama: Llama, x: Array, *, text: TextBatch, keys: int) -> Array:
    """Mean over layers and heads of the weights of the first `keys` positions: [B, S, keys]."""
    visible = text.visible(audio_tokens=keys)
    rope = llama.rope(text.positions)

    def step(layer: Layer, x: Array, _: None) -> tuple[Array, Array]:
        q, k, v = layer.project(x, rope=rope)
        scale = layer.self_attn.head_dim**-0.5
        weights = attention_weights(q, k, visible=visible, scale=scale)
        return layer.finish(x, (q, k, v), visible=visible), weights[..., :keys].mean(1)

    return scan_layers(llama.layers, step, x)[1].mean(0)
