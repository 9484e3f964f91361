"""A module apart from its parameters; the only place where nnx meets a flat dict of them.

model = LTUAS.functional(config, dtype=jnp.bfloat16, remat="full")
model.shapes                                  what a weights file must hold; nothing is allocated
params = model.init(key)                      random parameters, {path: array}
model.bind(params).hidden(text, features)     the module over these parameters
jax.jit(model.pure(LTUAS.hidden))(params, text, features)
"""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.trees import Params

M = TypeVar("M", bound=nnx.Module)
P = ParamSpec("P")
R = TypeVar("R")
Shapes = dict[str, jax.ShapeDtypeStruct]


class Functional(Generic[M]):
    """A module of class `M` without parameters: hashable by identity, so jit takes it as static.

    Attributes:
        config: the sizes that the module was made from.
        shapes: path -> shape and dtype of every parameter.
    """

    def __init__(self, make: Callable[[nnx.Rngs], M], *, config: Any, prefix: str = ""):
        """See a module through flat parameters, without allocating any.

        Args:
            make: builds the module from its random streams.
            config: sizes of the module.
            prefix: put before every parameter's path.
        """
        self.config, self._make, self._prefix = config, make, prefix
        key = jax.eval_shape(jax.random.key, 0)
        abstract = nnx.eval_shape(lambda key: make(nnx.Rngs(params=key)), key)
        self._graph, state = nnx.split(abstract)
        self._variables = {
            prefix + ".".join(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)
        }
        self.shapes: Shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, (_, leaf) in self._variables.items()
        }

    def __repr__(self) -> str:
        """Return a hash of all that a bound module is but for its parameters."""
        return f"Functional({self._graph_hash})"

    @functools.cached_property
    def _graph_hash(self) -> str:
        graph = re.sub(r" at 0x[0-9a-f]+", "", repr(self._graph))
        return hashlib.sha256(graph.encode()).hexdigest()

    def init(self, key: Array) -> Params:
        """Return random parameters."""
        state = nnx.state(self._make(nnx.Rngs(params=key)), nnx.Param)
        return {self._prefix + ".".join(path): leaf[...] for path, leaf in nnx.to_flat_state(state)}

    def bind(self, params: Mapping[str, Array]) -> M:
        """Return the module over `params`; paths without the prefix are another module's.

        Raises:
            UserError: parameters are missing, surplus or of another shape.
        """
        given = {name for name in params if name.startswith(self._prefix)}
        if given != self.shapes.keys():
            missing, surplus = self.shapes.keys() - given, given - self.shapes.keys()
            raise UserError(
                f"parameters do not fit the model: {len(missing)} missing ({shorten(missing)}), "
                f"{len(surplus)} surplus ({shorten(surplus)}); build the model from the config "
                "stored with the weights"
            )
        for name, shape in self.shapes.items():
            if params[name].shape != shape.shape:
                raise UserError(
                    f"parameter {name} has shape {params[name].shape}, the model needs "
                    f"{shape.shape}; build the model from the config stored with the weights"
                )
        # numpy arrays (weights fresh from a file) cannot be indexed by traced ids.
        leaves = {
            path: leaf.replace(jnp.asarray(params[name]))
            for name, (path, leaf) in self._variables.items()
        }
        return nnx.merge(self._graph, nnx.from_flat_state(leaves))

    def pure(
        self, method: Callable[Concatenate[M, P], R]
    ) -> Callable[Concatenate[Mapping[str, Array], P], R]:
        """Return a method of the module as a function of parameters and the method's arguments."""

        def call(params: Mapping[str, Array], /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self.bind(params), *args, **kwargs)

        return call
