"""Losses in float32: shifted cross-entropy at the target positions, and tagging.

A target is `labels[t + 1] != -100`, predicted from position t. The input pipeline has already set
-100 where nothing is to be predicted (padding, prompts, the first token of a grouped pair); in the
official left-padded layout the last pad position does predict BOS (facts 7), and it does here.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.trees import Params, merge
from ltu_jax.models.functional import Functional
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.models.tltr import Tagger
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training.chunked import chunked_sums

POSITIONS = "target_positions"
TARGETS = "target_ids"
WEIGHTS = "row_weights"  # of a row's targets in the loss, where their plain mean is not meant
HEAD = ("llama.embed_tokens.", "llama.lm_head.")  # what the vocabulary head may be made of
# The share of a row's length that its targets may fill, per bucket: few shapes to compile, and
# the last one always suffices.
_BUCKETS = (0.375, 0.75, 1.0)
_MULTIPLE = 8

Features = Callable[[Params, Mapping[str, Array]], Float[Array, "B W A D"]]


def with_targets(
    batch: Mapping[str, np.ndarray], *, dense: bool, most: int = 0
) -> dict[str, np.ndarray]:
    """Replace host "labels" by the positions and ids of their targets.

    The vocabulary head is the dearest layer per token, so it runs at target positions only. All
    rows get P places: with `dense` P = T - 1; otherwise the smallest bucket of T that holds the
    row with the most targets, so nothing is ever cut. Several processes must agree on P though
    each sees only its own rows: they give the same `most`, or use `dense`.

    Args:
        batch: what the input pipeline yields.
        dense: see above.
        most: targets that some row of another process has.

    Returns:
        the batch with int32 "target_positions" [B, P] (position t that predicts) and "target_ids"
        [B, P] (-100 in unused places) instead of "labels" [B, T].
    """
    shifted = np.asarray(batch["labels"])[:, 1:]
    wanted = shifted != IGNORE
    length = shifted.shape[1]
    most = int(wanted.sum(axis=1).max(initial=most))
    places = length if dense else _bucket(most, length=length)
    # A stable sort of "not wanted" brings the wanted positions to the front, in order.
    positions = np.argsort(~wanted, axis=1, kind="stable")[:, :places].astype(np.int32)
    ids = np.take_along_axis(shifted, positions, axis=1).astype(np.int32)
    rest = {name: leaf for name, leaf in batch.items() if name != "labels"}
    return {**rest, POSITIONS: positions, TARGETS: ids}


def cross_entropy(
    logits: Float[Array, "B P V"], targets: Int[Array, "B P"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return mean negative log-likelihood and accuracy over targets that are not -100, float32.

    A batch without targets has loss 0.
    """
    loss, hits = summed_cross_entropy(logits, targets)
    count = jnp.maximum(jnp.sum(targets != IGNORE), 1).astype(jnp.float32)
    return loss / count, hits / count


def summed_cross_entropy(
    logits: Float[Array, "B P V"], targets: Int[Array, "B P"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of negative log-likelihoods and number of hits over targets that are not -100."""
    logits = logits.astype(jnp.float32)
    valid = targets != IGNORE
    chosen = jnp.take_along_axis(logits, jnp.where(valid, targets, 0)[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    hits = (jax.lax.stop_gradient(logits).max(axis=-1) == chosen) & valid
    return jnp.sum(jnp.where(valid, losses, 0.0)), jnp.sum(hits).astype(jnp.float32)


def weighted_cross_entropy(
    logits: Float[Array, "B P V"], targets: Int[Array, "B P"], weights: Float[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of negative log-likelihoods, each times its row's weight, and number of hits."""
    losses, hits = jax.vmap(summed_cross_entropy)(logits, targets)
    return jnp.sum(losses * weights), jnp.sum(hits)


def count_targets(batch: Mapping[str, Array]) -> Int[Array, ""]:
    """Count the targets of a batch: the weight of its mean in one over all tokens of a step."""
    return jnp.sum(batch[TARGETS] != IGNORE)


def language_loss(model: Functional[LTUAS], *, features: Features, chunk: int = 0) -> Callable:
    """Return the loss of the language stages, for `make_train_step`.

    The mean over all targets of a batch; where it has "row_weights" [B], the sum of all targets'
    losses times those of their rows.

    Args:
        model: the model apart from its parameters.
        features: `features(frozen, batch)` -> audio features; nothing in it is differentiated.
        chunk: target positions of a row whose logits exist at a time; 0 for all of them.
    """

    unembed = model.pure(LTUAS.unembed)

    def loss_fn(trainable: Params, frozen: Params, batch: Mapping[str, Array], key: Array | None):
        audio = jax.lax.stop_gradient(features(frozen, batch))
        params = merge(trainable, without(frozen, "whisper."))
        text = TextBatch.of(batch)
        states = model.bind(params).hidden(text, audio, dropout_key=key)
        picked = jnp.take_along_axis(states, text.target_positions[..., None], axis=1)
        targets = text.target_ids
        count = jnp.maximum(jnp.sum(targets != IGNORE), 1).astype(jnp.float32)
        whole, sums = count, summed_cross_entropy
        if text.row_weights is not None:
            whole, sums = 1.0, functools.partial(weighted_cross_entropy, weights=text.row_weights)
        if chunk == 0 or chunk >= targets.shape[1]:
            loss, hits = sums(unembed(params, picked), targets)
            return loss / whole, {"token_accuracy": hits / count}
        head = {path: leaf for path, leaf in trainable.items() if path.startswith(HEAD)}
        loss, hits = chunked_sums(
            picked,
            targets,
            unembed=unembed,
            trainable=head,
            frozen={path: leaf for path, leaf in params.items() if path not in head},
            sums=sums,
            ignored=IGNORE,
            chunk=chunk,
        )
        return loss / whole, {"token_accuracy": hits / count}

    return loss_fn


def tagging_loss(model: Functional[Tagger], *, features: Features) -> Callable:
    """Return mean binary cross-entropy over rows and labels (Whisper-AT's)."""

    def loss_fn(trainable: Params, frozen: Params, batch: Mapping[str, Array], key: Array | None):
        del key
        audio = jax.lax.stop_gradient(features(frozen, batch))
        tagger = model.bind(merge(trainable, without(frozen, "whisper.")))
        scores = tagger(audio).astype(jnp.float32)
        return binary_cross_entropy(scores, batch["targets"]), {}

    return loss_fn


def binary_cross_entropy(
    logits: Float[Array, "B N"], targets: Float[Array, "B N"]
) -> Float[Array, ""]:
    """Return the mean of `softplus(x) - x * target`, the stable form of sigmoid cross-entropy."""
    return jnp.mean(jax.nn.softplus(logits) - logits * targets.astype(jnp.float32))


def without(params: Params, prefix: str) -> Params:
    """Return the parameters whose path does not start with `prefix`."""
    return {path: leaf for path, leaf in params.items() if not path.startswith(prefix)}


def under(params: Params, prefix: str) -> Params:
    """Return the parameters whose path starts with `prefix`, with the prefix taken off."""
    return {path[len(prefix) :]: leaf for path, leaf in params.items() if path.startswith(prefix)}


def _bucket(needed: int, *, length: int) -> int:
    for share in _BUCKETS:
        places = min(length, -(-int(np.ceil(length * share)) // _MULTIPLE) * _MULTIPLE)
        if needed <= places:
            return places
    return length
