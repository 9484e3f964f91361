"""What a dtype promises of a product: a TPU computes float32 ones in bfloat16 unless told.

The default there is one pass over operands rounded to bfloat16 (GPUs may round to TF32). Models
that are asked for in float32 multiply in float32: precision "highest", six passes on a TPU. In
bfloat16 and float16 the operands are of that dtype already, one pass has all of them, and sums are
float32.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Fns = TypeVar("Fns")


def products_of(dtype: Any) -> contextlib.AbstractContextManager:
    """Trace products of a compute dtype; backward passes of custom gradients need it too."""
    if jnp.dtype(dtype) == jnp.float32:
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def keep_promise(fns: Fns, dtype: Any) -> Fns:
    """A dataclass of functions, each of which traces its products as `dtype` promises."""
    changed = {
        field.name: _within(value, dtype)
        for field in dataclasses.fields(fns)
        if callable(value := getattr(fns, field.name))
    }
    return dataclasses.replace(fns, **changed)


def _within(function: Callable, dtype: Any) -> Callable:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with products_of(dtype):
            return function(*args, **kwargs)

    return run
