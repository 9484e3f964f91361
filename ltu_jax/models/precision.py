"""The precision of a product by its dtype: a TPU computes float32 ones in bfloat16 unless told.

The default there is one pass over operands rounded to bfloat16 (GPUs may round to TF32). Models
that are asked for in float32 multiply in float32: precision "highest", six passes on a TPU. In
bfloat16 and float16 the operands are of that dtype already, one pass has all of them, and sums are
float32.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
R = TypeVar("R")


def products_of(dtype: Any) -> contextlib.AbstractContextManager:
    """Return a context that traces products of a compute dtype; custom gradients need it again."""
    if jnp.dtype(dtype) == jnp.float32:
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def in_own_precision(method: Callable[P, R]) -> Callable[P, R]:
    """Trace the products of a module's method as the module's `dtype` promises."""

    @functools.wraps(method)
    def traced(self: Any, *args: Any, **kwargs: Any) -> R:
        with products_of(self.dtype):
            return method(self, *args, **kwargs)

    return traced
