"""Between nnx modules and flat parameters; the only place where nnx meets a dict."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.trees import Params

Shapes = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bridge:
    """An nnx module class seen as flat shapes, an initialiser and a binder of parameters."""

    shapes: Shapes
    init: Callable[[Array], Params]
    bind: Callable[[Mapping[str, Array]], Any]


def bridge(make: Callable[[nnx.Rngs], nnx.Module], *, prefix: str = "") -> Bridge:
    """See a module through flat parameters, without allocating any.

    Args:
        make: builds the module from its random streams.
        prefix: put before every parameter's path.

    Raises:
        UserError: from `bind`, when parameters are missing, surplus or of another shape.
    """

    def init(key: Array) -> Params:
        return _flat(nnx.state(make(nnx.Rngs(params=key)), nnx.Param), prefix)

    key = jax.eval_shape(jax.random.key, 0)
    abstract = nnx.eval_shape(lambda key: make(nnx.Rngs(params=key)), key)
    graph, state = nnx.split(abstract)
    variables = {prefix + ".".join(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, (_, leaf) in variables.items()
    }

    def bind(params: Mapping[str, Array]) -> nnx.Module:
        given = {name for name in params if name.startswith(prefix)}
        if given != shapes.keys():
            missing, surplus = shapes.keys() - given, given - shapes.keys()
            raise UserError(
                f"parameters do not fit the model: {len(missing)} missing ({shorten(missing)}), "
                f"{len(surplus)} surplus ({shorten(surplus)}); build the model from the config "
                "stored with the weights"
            )
        for name, shape in shapes.items():
            if params[name].shape != shape.shape:
                raise UserError(
                    f"parameter {name} has shape {params[name].shape}, the model needs "
                    f"{shape.shape}; build the model from the config stored with the weights"
                )
        # numpy arrays (weights fresh from a file) cannot be indexed by traced ids.
        leaves = {
            path: leaf.replace(jnp.asarray(params[name]))
            for name, (path, leaf) in variables.items()
        }
        return nnx.merge(graph, nnx.from_flat_state(leaves))

    return Bridge(shapes=shapes, init=init, bind=bind)


def _flat(state: nnx.State, prefix: str) -> Params:
    return {prefix + ".".join(path): leaf[...] for path, leaf in nnx.to_flat_state(state)}
