"""Begin what is new in a stage where its first steps would take it.

A tagger's label head: Whisper's features have a few dimensions that are large and alike in every
clip, and most labels are rare; a head that begins at random spends its first passes on both. Here
the norm before the head makes each dimension of what goes in 0 in the mean and 1 in deviation, and
the head says how frequent each label is.

The projection of stage 1: the audio tokens of a random one are noise to the language model, whose
gradient says little about how to make words of them. Here an audio token is the names of the labels
that the tagger hears, by least squares. The parameters are those of any model.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.distributed import host_batch_to_global
from ltu_jax.core.sharding import batch_sharding, replicated
from ltu_jax.core.trees import Params
from ltu_jax.models.norms import LAYER_NORM_EPS, standardise
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.stage import Stage

_LEAST = 1e-3  # deviation of a dimension
_RIDGE = 0.1  # against inputs of deviation 1
_UNHEARD = -5.0  # logit (1 in 150) below which differences are no hearing
_ROUNDING = 1e-12  # of the spread of words, below which answers do not differ


def fitted_head(stage: Stage, params: Params, *, clips: int) -> dict[str, np.ndarray]:
    """Return the parameters of a label head that is fitted to the first clips of a stage.

    Args:
        stage: of tagging.
        params: all parameters of its step; the head among them is not looked at.
        clips: how many are heard, in whole batches, at most all once.
    """

    def heard(params: Params, batch: dict[str, Any]) -> tuple[Any, Any]:
        tagger = stage.model.bind(losses.without(params, losses.WHISPER))
        pooled = tagger.tltr.pooled_first(stage.features(params, batch)).astype(jnp.float32)
        centred = pooled - pooled.mean(-1, keepdims=True)
        spread = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + LAYER_NORM_EPS)
        return centred / spread, batch["targets"]

    found = _computed(stage, params, heard, clips=clips)
    inputs, targets = (
        np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True)
    )
    deviation = np.maximum(inputs.std(axis=0), _LEAST)
    frequency = (targets.sum(axis=0) + 0.5) / (len(targets) + 1)
    fitted = {
        "label_head.norm.scale": 1 / deviation,
        "label_head.norm.bias": -inputs.mean(axis=0) / deviation,
        "label_head.kernel": np.zeros((inputs.shape[1], targets.shape[1])),
        "label_head.bias": np.log(frequency / (1 - frequency)),
    }
    return {name: values.astype(np.float32) for name, values in fitted.items()}


def fitted_projection(
    stage: Stage, params: Params, *, clips: int, head: Params, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return a projection whose audio tokens are the names of what a tagger's label head hears.

    Ridge regression on each audio token of a clip: of the labels' names, each as strong as the
    head's logit of the clip is above its mean. Then the differences between tokens are made as
    large as those between the words of names. So the language model begins to read what the tagger
    knows of any clip, and not what is said of these clips alone.

    Args:
        stage: of the language stages.
        params: all parameters of its step; the projection among them is not looked at.
        clips: how many are heard, in whole batches, at most all rows once.
        head: parameters of the label head (`label_head.`), over the TLTR of `params`.
        labels: the names of its outputs.
    """
    scale, shift, kernel, bias = (
        np.asarray(head[f"label_head.{name}"], np.float32)
        for name in ("norm.scale", "norm.bias", "kernel", "bias")
    )

    def heard(params: Params, batch: dict[str, Any]) -> tuple[Any, ...]:
        model = stage.model.bind(losses.without(params, losses.WHISPER))
        features, text = stage.features(params, batch), TextBatch.of(batch)
        several = features.shape[1] if text.clip_ids is not None else 1
        features = features.reshape(-1, *features.shape[-3:])
        pooled = model.tltr.pooled_first(features).astype(jnp.float32)
        logits = (standardise(pooled, eps=LAYER_NORM_EPS) * scale + shift) @ kernel + bias
        clip = jnp.zeros_like(text.target_positions)
        if text.clip_ids is not None:
            clip = jnp.take_along_axis(text.clip_ids, text.target_positions, axis=1)
        asked = (clip[..., None] == jnp.arange(several)) & (text.target_ids != IGNORE)[..., None]
        tokens = model.tltr(features).astype(jnp.float32)
        return standardise(tokens, eps=LAYER_NORM_EPS), logits, asked.any(axis=1).reshape(-1)

    found = _computed(stage, params, heard, clips=clips)
    inputs, logits, used = (np.concatenate(parts) for parts in zip(*found, strict=True))
    inputs, logits = inputs[used].astype(np.float64), logits[used].astype(np.float64)
    names, mean, spread = _words(stage, params, labels)
    logits = np.maximum(logits, _UNHEARD)
    inputs_mean = inputs.mean(axis=(0, 1))
    flat = (inputs - inputs_mean).reshape(-1, inputs.shape[-1])
    wanted = np.repeat((logits - logits.mean(axis=0)) @ names, inputs.shape[1], axis=0)
    ridge = _RIDGE * len(flat) * np.eye(inputs.shape[-1])
    kernel = np.linalg.solve(flat.T @ flat + ridge, flat.T @ wanted)
    size = np.mean(np.sum((flat @ kernel) ** 2, axis=1))
    if size > _ROUNDING * spread:  # else the head hears the same in all clips
        kernel *= np.sqrt(spread / size)
    fitted = {"audio_proj.kernel": kernel, "audio_proj.bias": mean - inputs_mean @ kernel}
    return {name: values.astype(np.float32) for name, values in fitted.items()}


def _words(
    stage: Stage, params: Params, labels: Sequence[str]
) -> tuple[Float[np.ndarray, "V E"], Float[np.ndarray, " E"], float]:
    """Return a direction for each label's name, the mean embedding of names, and their spread."""
    encode = stage.bases.tokenizer.encode
    before = len(encode("The"))  # a name within a sentence, in any vocabulary
    tokens = [encode(f"The {label.lower()}")[before:] for label in labels]
    model = stage.model.bind(losses.without(params, losses.WHISPER))
    flat = np.concatenate([np.asarray(ids, np.int32) for ids in tokens])
    embeddings = np.asarray(model.embed_text(flat[None]), np.float64)[0]
    bounds = np.cumsum([0, *map(len, tokens)])
    names = np.stack([embeddings[a:b].mean(axis=0) for a, b in itertools.pairwise(bounds)])
    mean = names.mean(axis=0)
    spread = np.mean(np.sum((embeddings - embeddings.mean(axis=0)) ** 2, axis=1))
    centred = names - mean
    sizes = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.maximum(sizes, np.sqrt(_ROUNDING)), mean, spread


def _computed(stage: Stage, params: Params, heard: Callable, *, clips: int) -> list[Any]:
    """Return `heard(params, batch)` of the batches with the first clips, whole on this host."""
    rows = stage.settings.data.rows_per_batch
    batches = min(stage.pipeline.steps_per_epoch, math.ceil(clips / rows))
    whole = replicated(stage.mesh)
    compute = jax.jit(
        heard,
        in_shardings=(None, batch_sharding(stage.mesh)),
        out_shardings=whole,
    )
    return [
        tuple(map(np.asarray, compute(params, host_batch_to_global(batch, stage.mesh))))
        for batch in stage.pipeline.batches(steps=batches)
    ]
