"""Counts of a traced step, before any compiler: FLOPs, activations and resident bytes."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.sharding import Mesh

from ltu_jax.core.sharding import batch_ways, param_specs
from ltu_jax.training.program import Program
from ltu_jax.training.step import micro_shapes

_SUBPROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr", "cond_jaxpr", "body_jaxpr", "branches")


def gradient_flops(program: Program, *, accumulation: int) -> float:
    """Count the FLOPs of all matrix products and convolutions in loss and gradient of one step.

    With whatever the remat policy computes again, before the compiler simplifies anything, on all
    devices together.
    """
    batch = micro_shapes(program.batch, accumulation=accumulation)
    gradient = jax.value_and_grad(program.loss_fn, has_aux=True)
    jaxpr = jax.make_jaxpr(gradient)(program.state.trainable, program.frozen, batch, program.key)
    return accumulation * jaxpr_flops(jaxpr.jaxpr)


def jaxpr_flops(jaxpr: jex_core.Jaxpr) -> float:
    """Count the FLOPs of the products of a jaxpr, two per multiplication with addition.

    A scan counts its body as often as it runs, a branch its dearest side.

    Raises:
        ValueError: a while loop with products in it, whose rounds nothing tells.
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[dim] for dim in contracted)
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        per_output = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * per_output
    inner = [jaxpr_flops(part) for part in _inner(params)]
    if name == "while" and any(inner):
        raise ValueError(f"a while loop with matrix products in it: {equation.source_info}")
    if name == "cond":
        return max(inner, default=0.0)
    return (params["length"] if name == "scan" else 1) * sum(inner)


def _inner(params: dict[str, Any]) -> Iterator[jex_core.Jaxpr]:
    for key in _SUBPROGRAMS:
        value = params.get(key)
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(part, "jaxpr"):
                yield part.jaxpr
            elif hasattr(part, "eqns"):
                yield part


def saved_bytes(program: Program, *, accumulation: int) -> float:
    """Count the bytes that the forward pass of a micro-batch keeps for the backward pass.

    On all devices together: the residuals of the loss as JAX differentiates it, parameters left
    out. The compiler may keep less (it merges and rounds) and needs more while it works; see
    `docs/planner.md`.
    """
    batch = micro_shapes(program.batch, accumulation=accumulation)

    def pullback(trainable: Any, frozen: Any, batch: Any, key: Any) -> Any:
        def loss(trainable: Any) -> Any:
            return program.loss_fn(trainable, frozen, batch, key)[0]

        return jax.vjp(loss, trainable)[1]

    residuals = jax.eval_shape(
        pullback, program.state.trainable, program.frozen, batch, program.key
    )
    # Weights are residuals too, in any dtype they were cast to.
    weights = {leaf.shape for leaf in (*program.state.trainable.values(), *program.frozen.values())}
    return float(
        sum(
            _bytes(leaf)
            for leaf in jax.tree.leaves(residuals)
            if leaf.shape not in weights
            and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
        )
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidentBytes:
    """Bytes that lie on one device throughout, by arithmetic from shapes and sharding."""

    base: float
    trainable: float
    optimiser: float
    batch: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.base + self.trainable + self.optimiser + self.batch


def resident_bytes(program: Program, mesh: Mesh) -> ResidentBytes:
    """Count what of a program's arguments lies on one device of `mesh`."""
    moments = [leaf for leaf in jax.tree.leaves(program.state.opt_state) if leaf.shape]
    trainable = _sharded_bytes(program.state.trainable, mesh)
    # Both moments lie where their parameter lies.
    copies = sum(map(_bytes, moments)) / max(1, sum(map(_bytes, program.state.trainable.values())))
    return ResidentBytes(
        base=_sharded_bytes(program.frozen, mesh),
        trainable=trainable,
        optimiser=trainable * copies,
        batch=sum(map(_bytes, program.batch.values())) / batch_ways(mesh),
    )


def _bytes(leaf: Any) -> float:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _sharded_bytes(params: dict[str, Any], mesh: Mesh) -> float:
    return sum(
        _bytes(params[path]) / math.prod(mesh.shape[axis] for axis in spec if axis is not None)
        for path, spec in param_specs(params, mesh).items()
    )
