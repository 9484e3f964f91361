"""The state of training: step, trained parameters, optimiser state, and their shardings."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ltu_jax.core.axes import Array
from ltu_jax.core.sharding import param_shardings, replicated
from ltu_jax.core.trees import Params, label, split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The only tree that a step replaces; everything in it is saved in a checkpoint."""

    step: Array
    trainable: Params
    opt_state: optax.OptState


def split_trainable(
    params: Mapping[str, Any], rules: Sequence[tuple[str, bool]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part parameters into (trainable, frozen) by an ordered table of (pattern, trained?).

    Raises:
        ValueError: a parameter without a rule, or a rule without a parameter.
    """
    return split(params, label(rules, params), True)


def create_state(trainable: Params, tx: optax.GradientTransformation, *, mesh: Mesh) -> TrainState:
    """Make a fresh state at step 0 on `mesh`; trainable parameters become float32 masters."""

    make = _maker(tx)
    shardings = state_shardings(jax.eval_shape(make, dict(trainable)), mesh=mesh)
    return jax.jit(make, out_shardings=shardings)(dict(trainable))


def abstract_state(trainable: Mapping[str, Any], tx: optax.GradientTransformation) -> TrainState:
    """Return the shapes of the state that `create_state` would make."""
    return jax.eval_shape(_maker(tx), dict(trainable))


def _maker(tx: optax.GradientTransformation) -> Callable[[Params], TrainState]:
    def make(params: Params) -> TrainState:
        masters = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in params.items()}
        step = jnp.zeros((), jnp.int32)
        return TrainState(step=step, trainable=masters, opt_state=tx.init(masters))

    return make


def state_shardings(state: TrainState, *, mesh: Mesh) -> TrainState:
    """Return the shardings of a state: moments lie like their parameter, counters are whole."""
    by_path = param_shardings(mesh, state.trainable)
    whole = replicated(mesh)

    def place(key_path: tuple[Any, ...], leaf: Any) -> Any:
        # A flat tree is a dict, so the last dict key on the way to a moment is its parameter path.
        names = [key.key for key in key_path if isinstance(key, jax.tree_util.DictKey)]
        path = names[-1] if names else None
        same_shape = path in by_path and leaf.shape == state.trainable[path].shape
        return by_path[path] if same_shape else whole

    return jax.tree_util.tree_map_with_path(place, state)


def skipped_steps(state: TrainState) -> int:
    """Return how many steps of a run were taken back: the optimiser has not counted them."""
    counted = optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")
    return int(state.step) - min(int(count) for _, count in counted)
