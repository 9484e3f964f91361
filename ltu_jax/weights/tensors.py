"""Tensors that are not read yet: what every weight format is turned into, and made from.

A file is a mapping `{name: Tensor}`. A `Tensor` knows its shape and dtype at once and its numbers
when asked, all of them or some rows; so a 13 GB checkpoint is checked by names and shapes before a
byte of it is copied, and converted in pieces no larger than a layer.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ltu_jax.core.errors import UserError, shorten

BLOCK_BYTES = 64 << 20  # what is in flight when a tensor is copied
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class WeightsError(UserError):
    """A weight file that is damaged, incomplete or of another model; the message says which."""


def damaged(path: Path, problem: str) -> WeightsError:
    """Return the one message for a file that an interrupted download left behind."""
    return WeightsError(
        f"{path} is damaged: {problem}. An interrupted download or copy looks like this; "
        "fetch the file again"
    )


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file or of a conversion: shape and dtype now, numbers when asked.

    `read()` gives the whole; `rows(start, stop)`, where there is one, gives `[start:stop]` along
    the leading axis without touching the rest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    rows: Callable[[int, int], np.ndarray] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the numbers in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def between(self, start: int, stop: int) -> np.ndarray:
        """Return `[start:stop]` along the leading axis, by `rows` where possible."""
        return self.read()[start:stop] if self.rows is None else self.rows(start, stop)

    def layer(self, index: int) -> np.ndarray:
        """Return `[index]` along the leading axis."""
        return self.between(index, index + 1)[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the numbers in blocks along the leading axis, each about `BLOCK_BYTES`.

        A row is never divided, and a tensor without `rows` comes whole.
        """
        if self.rows is None or self.nbytes <= BLOCK_BYTES:
            yield self.read()
            return
        step = max(1, BLOCK_BYTES * self.shape[0] // self.nbytes)
        for start in range(0, self.shape[0], step):
            yield self.rows(start, min(start + step, self.shape[0]))

    def region(self, index: tuple[slice, ...], dtype: Any) -> np.ndarray:
        """Return `tensor[index].astype(dtype)` in one new array, read block by block.

        Args:
            index: one slice for each axis, as `jax.make_array_from_callback` asks.
            dtype: of the result.
        """
        bounds = [part.indices(size) for part, size in zip(index, self.shape, strict=True)]
        if self.rows is None or not bounds or self.nbytes <= BLOCK_BYTES:
            return np.array(self.read()[index], dtype)
        (first, last, _), inner = bounds[0], index[1:]
        out = np.empty([max(0, stop - start) for start, stop, _ in bounds], dtype)
        step = max(1, BLOCK_BYTES * self.shape[0] // self.nbytes)
        for start in range(first, last, step):
            stop = min(start + step, last)
            out[start - first : stop - first] = self.rows(start, stop)[(slice(None), *inner)]
        return out


Tensors = Mapping[str, Tensor]


def array_tensor(array: np.ndarray) -> Tensor:
    """Wrap an array that is already in memory."""
    array = np.asarray(array)
    rows = (lambda start, stop: array[start:stop]) if array.ndim else None
    return Tensor(shape=array.shape, dtype=array.dtype, read=lambda: array, rows=rows)


def as_tensors(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Wrap arrays and leave tensors; a lazy mapping of arrays gives its own `.tensors`."""
    if hasattr(params, "tensors"):
        return dict(params.tensors)
    return {
        name: value if isinstance(value, Tensor) else array_tensor(value)
        for name, value in params.items()
    }


# The bits of the exponent, all of which are set in NaN and infinities.
_EXPONENT = {
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
    "float32": (np.uint32, 0x7F800000),
    "float64": (np.uint64, 0x7FF0000000000000),
}


def require_floats(tensors: Tensors, *, subject: str) -> None:
    """Refuse tensors of integers and truth values, which no parameter is.

    Raises:
        WeightsError: there are some; the message names the first ten.
    """
    odd = {name: t.dtype.name for name, t in tensors.items() if t.dtype.name not in _EXPONENT}
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        raise WeightsError(
            f"{subject}: {len(odd)} tensors are no floating-point numbers but {kinds}: "
            f"{shorten(odd)}. Quantised weights look like this; take the original ones"
        )


def common_dtype(dtypes: Iterable[np.dtype]) -> np.dtype:
    """Return the narrowest dtype that holds numbers of all these exactly."""
    kinds = set(dtypes)
    if len(kinds) == 1:
        return kinds.pop()
    # float16 and bfloat16 have no common half: one has the mantissa, the other the range
    return np.result_type(np.float32, *(kind for kind in kinds if kind.itemsize > 2))


def _not_finite(array: np.ndarray) -> int:
    """Count the entries that are NaN or infinite."""
    kind, bits = _EXPONENT[array.dtype.name]
    flat = np.ascontiguousarray(array).reshape(-1).view(kind)
    return int(np.count_nonzero((flat & kind(bits)) == bits))


def finite(tensor: Tensor, name: str, *, subject: str) -> Tensor:
    """Return the same tensor, which refuses to be read where it is not all numbers.

    Args:
        tensor: of floating-point numbers.
        name: its name in the file.
        subject: the file.
    """

    def checked(array: np.ndarray) -> np.ndarray:
        if count := _not_finite(array):
            raise WeightsError(
                f"{subject}: {name} has {count:,} entries that are NaN or infinite: no weights, "
                "but what a failed training or a conversion to a narrow dtype leaves; take a good "
                "copy"
            )
        return array

    rows = None
    if tensor.rows is not None:

        def rows(start: int, stop: int) -> np.ndarray:
            return checked(tensor.rows(start, stop))

    return replace(tensor, read=lambda: checked(tensor.read()), rows=rows)


def cast(tensors: Tensors, dtype: np.dtype | None) -> dict[str, Tensor]:
    """Return the same tensors, rounded to `dtype` when read; None leaves them as they are.

    Reading raises `WeightsError` where a number would become infinite.
    """
    return dict(tensors) if dtype is None else {n: _cast(t, n, dtype) for n, t in tensors.items()}


def _cast(tensor: Tensor, name: str, dtype: np.dtype) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    exact = dtype.name not in _EXPONENT or np.can_cast(tensor.dtype, dtype, "safe")

    def rounded(array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            made = array.astype(dtype)
        if not exact and (count := _not_finite(made) - _not_finite(array)) > 0:
            largest = float(np.abs(np.nan_to_num(array.astype(np.float64), posinf=0)).max())
            raise WeightsError(
                f"{name}: {count:,} of its numbers (the largest is {largest:.6g}) would become "
                f"infinite in {dtype.name}, which ends at "
                f"{float(ml_dtypes.finfo(dtype).max):.6g}; choose bfloat16 or float32"
            )
        return made

    rows = None
    if tensor.rows is not None:

        def rows(start: int, stop: int) -> np.ndarray:
            return rounded(tensor.rows(start, stop))

    return Tensor(shape=tensor.shape, dtype=dtype, read=lambda: rounded(tensor.read()), rows=rows)


def describe_casts(tensors: Tensors, dtype: np.dtype | None) -> str:
    """Return what `cast` loses, in words: "" when nothing is rounded.

    A conversion rounds when the target has fewer mantissa bits or a smaller range; float16 to
    bfloat16 does (mantissa), bfloat16 to float16 does (range).
    """
    if dtype is None:
        return ""
    counts: dict[str, int] = {}
    for tensor in tensors.values():
        if not np.can_cast(tensor.dtype, dtype, "safe"):
            counts[tensor.dtype.name] = counts.get(tensor.dtype.name, 0) + 1
    return ", ".join(
        f"{count} tensors rounded from {name} to {dtype.name}" for name, count in counts.items()
    )
