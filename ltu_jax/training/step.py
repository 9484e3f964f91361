"""The one train step: gradient of the trainable part, accumulation, AdamW, metrics.

Stages, ablations, tagging and the tests all compile this function; they differ in the loss they
hand over. `loss_fn(trainable, frozen, batch, key) -> (loss, metrics)` is differentiated with
respect to its first argument only, so the frozen base has no gradient, no moments and no copy.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import BATCH, batch_sharding, replicated
from ltu_jax.core.trees import Params
from ltu_jax.training.optimizer import global_norm
from ltu_jax.training.resilience import guards
from ltu_jax.training.state import TrainState

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
LossFn = Callable[[Params, Params, Batch, Array], tuple[Array, Metrics]]
StepFn = Callable[[TrainState, Params, Batch, Array], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    mesh: Mesh,
    shardings: tuple[TrainState, Mapping[str, NamedSharding]],
    accumulation: int,
    weigh: Callable[[Batch], Array] | None = None,
    spike_sigma: float = 0.0,
) -> StepFn:
    """Compile `(state, frozen, batch, key) -> (state, metrics)`; the old state is donated.

    Args:
        loss_fn: loss and scalar metrics of one micro-batch.
        tx: optimiser over the trainable tree.
        mesh: the devices; the batch's leading axis lies over data and fsdp.
        shardings: of the state and of the frozen tree.
        accumulation: micro-batches per step. Micro-batch i has rows i, i + accumulation, ... so
            that every device has rows of each, and the gradient is the mean of the micro-batch
            means (facts 14), not one mean over all tokens.
        weigh: weight of a micro-batch in that mean, such as `losses.count_targets` for one mean
            over all tokens; None for equal weights.
        spike_sigma: skip steps so far above the last ones; above 0 `tx` must be one of
            `guards.looking_back`.

    The metrics are those of `loss_fn` averaged over micro-batches plus "loss", "grad_norm" (before
    clipping) and "skipped": 1 where loss or norm is not finite or a spike, which leaves all of the
    state but `step` as it was, bit for bit. `key` is folded with the step, so a resumed run draws
    the same dropout.
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    whole = replicated(mesh)

    def gradients(state: TrainState, frozen: Params, batch: Batch, key: Array):
        if accumulation == 1:
            (loss, metrics), grads = grad_fn(state.trainable, frozen, batch, key)
            return loss, metrics, grads
        micro = _micro_batches(batch, accumulation=accumulation, mesh=mesh)
        if weigh is not None:
            weights = jax.vmap(weigh)(micro).astype(jnp.float32)
            shares = weights / jnp.maximum(weights.sum(), 1)

        def add(total, inputs):
            index, part = inputs
            fresh = jax.random.fold_in(key, index)
            (loss, metrics), grads = grad_fn(state.trainable, frozen, part, fresh)
            result = (loss, metrics, grads)
            if weigh is not None:
                result = jax.tree.map(lambda leaf: leaf * shares[index], result)
            return jax.tree.map(jnp.add, total, result), None

        first = jax.tree.map(lambda leaf: leaf[0], micro)
        shapes = jax.eval_shape(grad_fn, state.trainable, frozen, first, key)
        (loss, metrics), grads = shapes
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (loss, metrics, grads))
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), micro))
        if weigh is not None:
            return total
        return jax.tree.map(lambda leaf: leaf / accumulation, total)

    def step(state: TrainState, frozen: Params, batch: Batch, key: Array):
        key = jax.random.fold_in(key, state.step)
        # So that the model can say how its activations lie (`keep_rows_apart`).
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            loss, metrics, grads = gradients(state, frozen, batch, key)
        norm = global_norm(grads)
        finite = good = jnp.isfinite(loss) & jnp.isfinite(norm)
        if spike_sigma:
            spike = guards.is_spike(state.opt_state, loss=loss, norm=norm, sigma=spike_sigma)
            good = finite & ~spike
        updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        trainable = guards.take_back(good, trainable, state.trainable)
        opt_state = guards.take_back(good, opt_state, state.opt_state)
        if spike_sigma:
            opt_state = guards.remember(opt_state, loss=loss, norm=norm, finite=finite)
        metrics = {**metrics, "loss": loss, "grad_norm": norm, "skipped": 1.0 - good}
        return TrainState(step=state.step + 1, trainable=trainable, opt_state=opt_state), metrics

    state_sharding, frozen_sharding = shardings
    return jax.jit(
        step,
        in_shardings=(state_sharding, dict(frozen_sharding), batch_sharding(mesh), whole),
        out_shardings=(state_sharding, whole),
        donate_argnums=0,
    )


def make_eval_step(
    loss_fn: LossFn, *, mesh: Mesh, shardings: tuple[Mapping, Mapping]
) -> Callable[[Params, Params, Batch], Metrics]:
    """Compile `(trainable, frozen, batch) -> metrics` with the training loss and no gradient."""

    def evaluate(trainable: Params, frozen: Params, batch: Batch) -> Metrics:
        loss, metrics = loss_fn(trainable, frozen, batch, None)
        return {**metrics, "loss": loss}

    trainable_sharding, frozen_sharding = shardings
    return jax.jit(
        evaluate,
        in_shardings=(dict(trainable_sharding), dict(frozen_sharding), batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )


def micro_shapes(
    batch: Mapping[str, jax.ShapeDtypeStruct], *, accumulation: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of one micro-batch of a global batch of these shapes."""
    return {
        name: jax.ShapeDtypeStruct((leaf.shape[0] // accumulation, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in batch.items()
    }


def _micro_batches(batch: Batch, *, accumulation: int, mesh: Mesh) -> dict[str, Array]:
    sharding = NamedSharding(mesh, PartitionSpec(None, BATCH))

    def cut(name: str, leaf: Array) -> Array:
        rows = leaf.shape[0]
        if rows % accumulation:
            raise UserError(
                f"batch of {rows} rows ({name}) does not divide into "
                f"optimizer.accumulation={accumulation} micro-batches"
            )
        parts = leaf.reshape(rows // accumulation, accumulation, *leaf.shape[1:])
        return jax.lax.with_sharding_constraint(jnp.swapaxes(parts, 0, 1), sharding)

    return {name: cut(name, leaf) for name, leaf in batch.items()}
