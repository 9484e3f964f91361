"""The one reader of weight tables: foreign tensors to our flat parameters, and back.

A table is a tuple of `NameRule`s. A rule names one foreign tensor (with `{layer}` where the format
numbers its layers), our path or paths for it, and an invertible `Transform`. Layers are stacked
along a new leading axis. Importing and exporting read the same table, so a round trip cannot
drift. Nothing is lenient: every foreign tensor is used once, every parameter is filled.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltu_jax.core.errors import shorten
from ltu_jax.weights.diagnosis import Shapes, complain
from ltu_jax.weights.tensors import (
    Tensor,
    Tensors,
    WeightsError,
    common_dtype,
    finite,
    require_floats,
)

Shape = tuple[int, ...]
_STRIP = 16  # columns of a transposed matrix that are copied at once


@dataclass(frozen=True)
class Transform:
    """An invertible rearrangement of one foreign tensor into one or more of ours."""

    unpack: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    pack: Callable[[tuple[np.ndarray, ...]], np.ndarray]


@dataclass(frozen=True)
class NameRule:
    """Foreign name template, our path(s), transform. A path of None must be zeros in the file."""

    source: str
    targets: tuple[str | None, ...]
    transform: Transform

    @property
    def layered(self) -> bool:
        """Whether one foreign tensor per layer makes one stacked parameter."""
        return "{layer}" in self.source


def _one(function: Callable[[np.ndarray], np.ndarray]) -> Transform:
    """Return a transform of a single array that is its own inverse."""
    return Transform(lambda x: (function(x),), lambda parts: function(parts[0]))


SAME = _one(lambda x: x)
# PyTorch and CTranslate2 keep a linear layer as [out, in]; ours is [in, out].
LINEAR = _one(lambda x: np.swapaxes(x, -1, -2))
# PyTorch convolution [out, in, width]; ours is [width, in, out].
CONV = _one(lambda x: np.transpose(x, (2, 1, 0)))


def fused(parts: int, inner: Transform) -> Transform:
    """Split the foreign output axis into `parts` equal blocks (q,k,v or k,v in one matrix)."""
    return Transform(
        lambda x: tuple(inner.unpack(block)[0] for block in np.split(x, parts, axis=0)),
        lambda blocks: np.concatenate([inner.pack((block,)) for block in blocks], axis=0),
    )


def interleaved(heads: int) -> Transform:
    """Reorder the rows of a rotary q/k layer that GGUF stores as pairs ("normal" RoPE).

    Hugging Face rotates the two halves of a head, llama.cpp's llama architecture neighbouring
    rows: row 2i+j of a head there is row j*(H/2)+i of it here. Works for weights and biases.
    """

    def unpack(x: np.ndarray) -> tuple[np.ndarray, ...]:
        half = x.shape[0] // heads // 2
        rows = x.reshape(heads, half, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
        return (rows.T,)

    def pack(parts: tuple[np.ndarray, ...]) -> np.ndarray:
        x = parts[0].T
        half = x.shape[0] // heads // 2
        return x.reshape(heads, 2, half, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)

    return Transform(unpack, pack)


def rule(source: str, target: str, transform: Transform) -> NameRule:
    """Return a rule with a single target path."""
    return NameRule(source, (target,), transform)


def dense(source: str, target: str, *, bias: bool = True) -> tuple[NameRule, ...]:
    """Return the rules of a linear layer: `source.weight` -> `target.kernel` and the bias."""
    kernel = rule(f"{source}.weight", f"{target}.kernel", LINEAR)
    return (kernel, rule(f"{source}.bias", f"{target}.bias", SAME)) if bias else (kernel,)


def convolutions(source: str, target: str) -> tuple[NameRule, ...]:
    """Return the rules of Whisper's two convolutions; `{}` in `source` stands for conv1, conv2."""
    return tuple(
        entry
        for name in ("conv1", "conv2")
        for entry in (
            rule(source.format(name) + "weight", f"{target}.{name}.kernel", CONV),
            rule(source.format(name) + "bias", f"{target}.{name}.bias", SAME),
        )
    )


def norm(source: str, target: str) -> tuple[NameRule, ...]:
    """Return the rules of a LayerNorm: weight and bias -> scale and bias."""
    return (
        rule(f"{source}.weight", f"{target}.scale", SAME),
        rule(f"{source}.bias", f"{target}.bias", SAME),
    )


def attention_block(source: str, target: str, *, cross: bool = False) -> tuple[NameRule, ...]:
    """Return the rules of OpenAI's ResidualAttentionBlock, of Whisper, TL-TR and LTU-AS."""
    table: list[NameRule] = []
    for name in ("attn", "cross_attn") if cross else ("attn",):
        for part in ("query", "key", "value", "out"):
            table += dense(f"{source}.{name}.{part}", f"{target}.{name}.{part}", bias=part != "key")
        table += norm(f"{source}.{name}_ln", f"{target}.{name}_ln")
    table += dense(f"{source}.mlp.0", f"{target}.mlp.up")
    table += dense(f"{source}.mlp.2", f"{target}.mlp.down")
    table += norm(f"{source}.mlp_ln", f"{target}.mlp_ln")
    return tuple(table)


def _hollow(shape: Shape) -> np.ndarray:
    """Return an array of any shape in no memory, to run a transform for its shape alone."""
    return np.broadcast_to(np.zeros((), np.float32), shape)


def _relevant(rules: Sequence[NameRule], paths: Iterable[str]) -> dict[str, tuple[NameRule, int]]:
    """Return {our path: (its rule, part of it)} for exactly `paths`."""
    paths = set(paths)
    relevant: dict[str, tuple[NameRule, int]] = {}
    for entry in rules:
        named = [target for target in entry.targets if target is not None]
        hit = [target for target in named if target in paths]
        if hit and len(hit) != len(named):
            raise WeightsError(f"{entry.source} needs all of {named}; there is only {hit}")
        for part, target in enumerate(entry.targets):
            if target in paths:
                assert target not in relevant, f"two rules for {target}"
                relevant[target] = (entry, part)
    lost = paths - set(relevant)
    if lost:
        raise WeightsError(f"this format has no name for {len(lost)} parameters: {shorten(lost)}")
    return relevant


def _names(entry: NameRule, layers: int) -> list[str]:
    if not entry.layered:
        return [entry.source]
    return [entry.source.replace("{layer}", str(layer)) for layer in range(layers)]


def _pack(entry: NameRule, get: Callable[[str], np.ndarray], first: str) -> np.ndarray:
    def part(target: str | None) -> np.ndarray:
        return get(target) if target is not None else np.zeros_like(get(first))

    return entry.transform.pack(tuple(part(target) for target in entry.targets))


def _in_order(array: np.ndarray) -> np.ndarray:
    """Return the same numbers in the order of a file, without a copy where they are in it."""
    if array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    out = np.empty(array.shape, array.dtype)
    _copy(array, to=out)
    return out


def _copy(array: np.ndarray, *, to: np.ndarray) -> None:
    """Copy an array, a transposed matrix in strips: whole, each number is read far from the last.

    That takes a fifth of the time of a copy by numpy alone.
    """
    if array.ndim != 2 or array.flags.c_contiguous or not array.flags.f_contiguous:
        to[...] = array
        return
    for start in range(0, array.shape[1], _STRIP):
        to[:, start : start + _STRIP] = array[:, start : start + _STRIP]


def _first(entry: NameRule) -> str:
    return next(target for target in entry.targets if target is not None)


def _used(rules: Sequence[NameRule], paths: Iterable[str]) -> list[NameRule]:
    paths = set(paths)
    return [entry for entry in rules if any(target in paths for target in entry.targets)]


def _layers(entry: NameRule, shapes: Shapes) -> int:
    return shapes[_first(entry)][0] if entry.layered else 1


def _foreign_shape(entry: NameRule, shapes: Shapes) -> Shape:
    drop = 1 if entry.layered else 0
    made = _pack(entry, lambda path: _hollow(shapes[path][drop:]), _first(entry))
    return tuple(made.shape)


def foreign_shapes(rules: Sequence[NameRule], shapes: Shapes) -> dict[str, Shape]:
    """Return the foreign names and shapes of parameters of `shapes`, in table order."""
    _relevant(rules, shapes)
    return {
        name: _foreign_shape(entry, shapes)
        for entry in _used(rules, shapes)
        for name in _names(entry, _layers(entry, shapes))
    }


def export(rules: Sequence[NameRule], params: Tensors) -> dict[str, Tensor]:
    """Return our parameters by their foreign names, in table order; read layer by layer."""
    shapes = {path: tensor.shape for path, tensor in params.items()}
    _relevant(rules, shapes)
    result: dict[str, Tensor] = {}
    for entry in _used(rules, shapes):
        shape = _foreign_shape(entry, shapes)
        for layer, name in enumerate(_names(entry, _layers(entry, shapes))):
            result[name] = _packed(entry, params, shape, layer if entry.layered else None)
    return result


def _packed(entry: NameRule, params: Tensors, shape: Shape, layer: int | None) -> Tensor:
    def get(path: str) -> np.ndarray:
        return params[path].read() if layer is None else params[path].layer(layer)

    rows = None
    if entry.transform is SAME and layer is None:
        rows = params[entry.targets[0]].rows
    return Tensor(
        shape=shape,
        dtype=params[_first(entry)].dtype,
        read=lambda: _in_order(_pack(entry, get, _first(entry))),
        rows=rows,
    )


def assemble(
    rules: Sequence[NameRule], tensors: Tensors, shapes: Shapes, *, subject: str
) -> dict[str, Tensor]:
    """Return foreign tensors as our parameters, stacked and transformed when they are read.

    Args:
        rules: the table of the format.
        tensors: the file's tensors; every one of them must be asked for by the table.
        shapes: our path -> shape, all of which are filled.
        subject: how an error calls the file.

    Raises:
        WeightsError: missing, surplus or mis-shaped names, at once; tensors of integers; or, when
            it is read, NaN or infinity, or a part that the format stores as zeros is not zero.
    """
    expected = foreign_shapes(rules, shapes)
    problem = complain(
        wanted=expected, found={name: t.shape for name, t in tensors.items()}, subject=subject
    )
    if problem:
        raise WeightsError(problem)
    require_floats(tensors, subject=subject)
    tensors = {name: finite(tensor, name, subject=subject) for name, tensor in tensors.items()}
    relevant = _relevant(rules, shapes)
    return {
        path: _gathered(*relevant[path], tensors, tuple(shape)) for path, shape in shapes.items()
    }


def _gathered(entry: NameRule, part: int, tensors: Tensors, shape: Shape) -> Tensor:
    names = _names(entry, shape[0] if entry.layered else 1)
    dtype = common_dtype(tensors[name].dtype for name in names)
    if not entry.layered:
        source = tensors[names[0]]
        return Tensor(
            shape=shape,
            dtype=dtype,
            read=lambda: _in_order(_unpack(entry, source, names[0])[part]),
            rows=source.rows if entry.transform is SAME else None,
        )

    def rows(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *shape[1:]), dtype)
        for place, name in enumerate(names[start:stop]):
            _copy(_unpack(entry, tensors[name], name)[part], to=out[place, ...])
        return out

    return Tensor(shape=shape, dtype=dtype, read=lambda: rows(0, len(names)), rows=rows)


def _unpack(entry: NameRule, tensor: Tensor, name: str) -> tuple[np.ndarray, ...]:
    parts = entry.transform.unpack(tensor.read())
    for target, array in zip(entry.targets, parts, strict=True):
        if target is None and array.any():
            raise WeightsError(
                f"{name}: a part that this format stores as zeros is not zero; "
                "this is not the architecture the table is for"
            )
    return parts


@dataclass(frozen=True, kw_only=True)
class Import:
    """What an importer found in a foreign source.

    `config` is the model config as a dict, `tensors` are what `rules` must use up, `base` holds
    parameters that are in our form already, `files` the tokenizer files by name (paths or
    contents), `notes` lines for the summary, `facts` those of `facts.FACTS` that are known.
    """

    config: dict[str, Any]
    rules: tuple[NameRule, ...]
    tensors: Tensors
    files: Mapping[str, Any]
    source: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    base: Tensors = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def params(self, shapes: Shapes, *, subject: str) -> dict[str, Tensor]:
        """Return every parameter of `shapes`; names and shapes are checked now (see `assemble`)."""
        surplus = set(self.base) - set(shapes)
        if surplus:
            raise WeightsError(f"{subject}: its base has no use for {shorten(surplus)}")
        rest = {path: shape for path, shape in shapes.items() if path not in self.base}
        require_floats(self.base, subject=subject)
        base = {path: finite(tensor, path, subject=subject) for path, tensor in self.base.items()}
        made = base | assemble(self.rules, self.tensors, rest, subject=subject)
        return {path: made[path] for path in shapes}
