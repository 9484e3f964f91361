"""Losses in float32: shifted cross-entropy at the target positions, and tagging.

The input pipeline has set the targets: none where nothing is to be predicted (padding, prompts, the
first token of a grouped pair); in the official left-padded layout the last pad position does
predict BOS (facts 7), and it does here.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ltu_jax.core.axes import Array, Float, Int
from ltu_jax.core.sharding import AudioLayout
from ltu_jax.core.trees import Params, merge
from ltu_jax.models.functional import Functional
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.text_batch import TARGET_IDS, TextBatch
from ltu_jax.models.tltr import Tagger
from ltu_jax.models.whisper import Encoder
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training.augmentation import AugmentationConfig, augment

WHISPER = "whisper."  # path of the frozen encoder
HEAD = ("llama.embed_tokens.", "llama.lm_head.")  # what the vocabulary head may be made of

Sums = tuple[Float[Array, ""], Float[Array, ""]]
Features = Callable[[Params, Mapping[str, Array]], Float[Array, "B W A D"]]


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
    return jnp.sum(batch[TARGET_IDS] != IGNORE)


def whisper_features(encoder: Functional[Encoder], *, layout: AudioLayout) -> Features:
    """Return `(frozen, batch) -> audio features` of a batch, stored ones where it has them.

    Args:
        encoder: of the frozen Whisper.
        layout: how its inputs and features lie on the mesh.
    """

    def features(frozen: Params, batch: Mapping[str, Array]) -> Float[Array, "B W A D"]:
        if "features" in batch:
            return layout.spread(batch["features"])
        log_mel = layout.spread(batch["log_mel"])
        return layout.spread(encoder.bind(under(frozen, WHISPER)).features(log_mel))

    return features


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
        params = merge(trainable, without(frozen, WHISPER))
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
            chunk=chunk,
        )
        return loss / whole, {"token_accuracy": hits / count}

    return loss_fn


def chunked_sums(
    states: Float[Array, "B P E"],
    targets: Int[Array, "B P"],
    *,
    unembed: Callable[[Params, Array], Float[Array, "B P V"]],
    trainable: Params,
    frozen: Params,
    sums: Callable[[Array, Array], Sums],
    chunk: int,
) -> Sums:
    """Return `sums(unembed(params, states), targets)`, `chunk` positions of every row at a time.

    The logits of all targets are never in memory together, at no more products than with them. A
    chunk is some target positions of every row: the batch axis keeps its place on the mesh, and the
    vocabulary axis too. The gradient of a chunk's states is taken while its logits are there, in
    the forward pass, and only multiplied in the backward pass; nothing is computed twice.

    Args:
        states: final-norm states of the target positions.
        targets: ids; -100 in unused places.
        unembed: vocabulary head.
        trainable: parameters of the head that are trained, often none; they get a gradient.
        frozen: all other parameters that `unembed` asks for; they get none.
        sums: (loss, hits) summed over positions of logits and targets; loss is differentiated.
        chunk: positions of a row whose logits exist at a time.
    """
    batch, places = targets.shape
    spare = -places % chunk
    states = jnp.pad(states, ((0, 0), (0, spare), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, spare)), constant_values=IGNORE)

    def chunks(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(batch, -1, chunk, *x.shape[2:]), 1, 0)

    @jax.custom_vjp
    def total(states: Array, head: Params, rest: Params, targets: Array) -> Sums:
        def add(total: Sums, part: tuple[Array, Array]) -> tuple[Sums, None]:
            value = sums(unembed(merge(head, rest), part[0]), part[1])
            return jax.tree.map(jnp.add, total, value), None

        return jax.lax.scan(
            add, (jnp.float32(0), jnp.float32(0)), (chunks(states), chunks(targets))
        )[0]

    def forward(states: Array, head: Params, rest: Params, targets: Array):
        def add(carry, part):
            (loss, hits), slopes = carry
            state, target = part
            value, pull, more = jax.vjp(
                lambda state, head: sums(unembed(merge(head, rest), state), target),
                state,
                head,
                has_aux=True,
            )
            slope, of_head = pull(jnp.ones_like(value))
            carry = (loss + value, hits + more), jax.tree.map(jnp.add, slopes, of_head)
            return carry, slope

        start = (jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, head)
        (value, of_head), slopes = jax.lax.scan(add, start, (chunks(states), chunks(targets)))
        return value, (jnp.moveaxis(slopes, 0, 1).reshape(states.shape), of_head)

    def backward(slopes, cotangents: Sums):
        of_states, of_head = jax.tree.map(lambda slope: slope * cotangents[0], slopes)
        return of_states, of_head, None, None

    total.defvjp(forward, backward)
    return total(states, trainable, frozen, targets)


def tagging_loss(
    model: Functional[Tagger], *, features: Features, augmentation: AugmentationConfig
) -> Callable:
    """Return mean binary cross-entropy over rows and labels (Whisper-AT's).

    Args:
        model: the tagger apart from its parameters.
        features: `features(frozen, batch)` -> audio features; nothing in it is differentiated.
        augmentation: what is done to training batches, those that come with a key.
    """

    def loss_fn(trainable: Params, frozen: Params, batch: Mapping[str, Array], key: Array | None):
        audio, targets = jax.lax.stop_gradient(features(frozen, batch)), batch["targets"]
        if augmentation.is_on and key is not None:
            audio, targets = augment(augmentation, audio, targets, key=key)
        tagger = model.bind(merge(trainable, without(frozen, WHISPER)))
        scores = tagger(audio).astype(jnp.float32)
        return binary_cross_entropy(scores, targets), {}

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
