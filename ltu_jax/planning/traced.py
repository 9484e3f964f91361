"""What can be told from the traced step, before any compiler: FLOPs and saved activations."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core as jex_core

from ltu_jax.training.program import Program
from ltu_jax.training.step import micro_shapes

_SUBPROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr", "cond_jaxpr", "body_jaxpr", "branches")


def gradient_flops(program: Program, *, accumulation: int) -> float:
    """FLOPs of all matrix products and convolutions in loss and gradient of one step.

    With whatever the remat policy computes again, before the compiler simplifies anything, on all
    devices together.
    """
    batch = micro_shapes(program.batch, accumulation=accumulation)
    gradient = jax.value_and_grad(program.loss_fn, has_aux=True)
    jaxpr = jax.make_jaxpr(gradient)(program.state.trainable, program.frozen, batch, program.key)
    return accumulation * jaxpr_flops(jaxpr.jaxpr)


def jaxpr_flops(jaxpr: jex_core.Jaxpr) -> float:
    """FLOPs of the products of a jaxpr, two per multiplication with addition.

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
    inner = [jaxpr_flops(one) for one in _inner(params)]
    if name == "while" and any(inner):
        raise ValueError(f"a while loop with matrix products in it: {equation.source_info}")
    if name == "cond":
        return max(inner, default=0.0)
    return (params["length"] if name == "scan" else 1) * sum(inner)


def _inner(params: dict[str, Any]) -> Iterator[jex_core.Jaxpr]:
    for key in _SUBPROGRAMS:
        found = params.get(key)
        for one in found if isinstance(found, tuple | list) else (found,):
            if hasattr(one, "jaxpr"):
                yield one.jaxpr
            elif hasattr(one, "eqns"):
                yield one


def saved_bytes(program: Program, *, accumulation: int) -> float:
    """Bytes that the forward pass keeps for the backward pass of one micro-batch, all devices.

    The residuals of the loss as JAX differentiates it, parameters left out. The compiler may
    keep less (it merges and rounds) and needs more while it works; see `docs/planner.md`.
    """
    batch = micro_shapes(program.batch, accumulation=accumulation)

    def pullback(trainable: Any, frozen: Any, batch: Any, key: Any) -> Any:
        def loss(trainable: Any) -> Any:
            return program.loss_fn(trainable, frozen, batch, key)[0]

        return jax.vjp(loss, trainable)[1]

    kept = jax.eval_shape(pullback, program.state.trainable, program.frozen, batch, program.key)
    # Weights are residuals too, in any dtype they were cast to.
    weights = {leaf.shape for leaf in (*program.state.trainable.values(), *program.frozen.values())}
    return float(
        sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(kept)
            if leaf.shape not in weights
            and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
        )
    )
