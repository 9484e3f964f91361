"""The one reader of weight tables: foreign tensors to our flat parameters, and back.

A table is a tuple of `Rule`s. A rule names one foreign tensor (with `{layer}` where the format
numbers its layers), our path or paths for it, and an invertible `Transform`. Layers are stacked
along a new leading axis. Importing and exporting read the same table, so a round trip cannot
drift. Nothing is lenient: every foreign tensor is used once, every parameter is filled.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from ltu_jax.core.trees import shorten
from ltu_jax.weights.io import Tensor, Tensors, WeightsError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Transform:
    """An invertible rearrangement of one foreign tensor into one or more of ours."""

    unpack: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    pack: Callable[[tuple[np.ndarray, ...]], np.ndarray]


@dataclass(frozen=True)
class Rule:
    """Foreign name template, our path(s), transform. A path of None must be zeros in the file."""

    source: str
    targets: tuple[str | None, ...]
    transform: Transform

    @property
    def layered(self) -> bool:
        """Whether one foreign tensor per layer makes one stacked parameter."""
        return "{layer}" in self.source


def _one(function: Callable[[np.ndarray], np.ndarray]) -> Transform:
    """A transform of a single array that is its own inverse."""
    return Transform(lambda x: (function(x),), lambda parts: function(parts[0]))


SAME = _one(lambda x: x)
# PyTorch and CTranslate2 keep a linear layer as [out, in]; ours is [in, out].
LINEAR = _one(lambda x: np.swapaxes(x, -1, -2))
# PyTorch convolution [out, in, width]; ours is [width, in, out].
CONV = _one(lambda x: np.transpose(x, (2, 1, 0)))


def fused(parts: int, inner: Transform) -> Transform:
    """`parts` equal blocks along the foreign output axis (q,k,v or k,v in one matrix)."""
    return Transform(
        lambda x: tuple(inner.unpack(block)[0] for block in np.split(x, parts, axis=0)),
        lambda blocks: np.concatenate([inner.pack((block,)) for block in blocks], axis=0),
    )


def interleaved(heads: int) -> Transform:
    """A rotary q/k linear layer whose rows GGUF stores as pairs (llama.cpp's "normal" RoPE).

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


def rule(source: str, target: str, transform: Transform) -> Rule:
    """A rule with a single target path."""
    return Rule(source, (target,), transform)


def dense(source: str, target: str, *, bias: bool = True) -> tuple[Rule, ...]:
    """The rules of a linear layer: `source.weight` -> `target.kernel` and the bias."""
    kernel = rule(f"{source}.weight", f"{target}.kernel", LINEAR)
    return (kernel, rule(f"{source}.bias", f"{target}.bias", SAME)) if bias else (kernel,)


def norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a LayerNorm: weight and bias -> scale and bias."""
    return (
        rule(f"{source}.weight", f"{target}.scale", SAME),
        rule(f"{source}.bias", f"{target}.bias", SAME),
    )


def _hollow(shape: Shape) -> np.ndarray:
    """An array of any shape in no memory, to run a transform for its shape alone."""
    return np.broadcast_to(np.zeros((), np.float32), shape)


def _relevant(rules: Sequence[Rule], paths: Iterable[str]) -> dict[str, tuple[Rule, int]]:
    """{our path: (its rule, part of it)}, for exactly `paths`."""
    paths = set(paths)
    found: dict[str, tuple[Rule, int]] = {}
    for entry in rules:
        named = [target for target in entry.targets if target is not None]
        hit = [target for target in named if target in paths]
        if hit and len(hit) != len(named):
            raise WeightsError(f"{entry.source} needs all of {named}; there is only {hit}")
        for part, target in enumerate(entry.targets):
            if target in paths:
                assert target not in found, f"two rules for {target}"
                found[target] = (entry, part)
    lost = paths - set(found)
    if lost:
        raise WeightsError(f"this format has no name for {len(lost)} parameters: {shorten(lost)}")
    return found


def _names(entry: Rule, layers: int) -> list[str]:
    if not entry.layered:
        return [entry.source]
    return [entry.source.replace("{layer}", str(layer)) for layer in range(layers)]


def _pack(entry: Rule, get: Callable[[str], np.ndarray], layer: int | None) -> np.ndarray:
    first = next(target for target in entry.targets if target is not None)

    def part(target: str | None) -> np.ndarray:
        array = get(target if target is not None else first)
        array = array if layer is None else array[layer]
        return array if target is not None else np.zeros_like(array)

    return entry.transform.pack(tuple(part(target) for target in entry.targets))


def foreign_shapes(rules: Sequence[Rule], shapes: Shapes) -> dict[str, Shape]:
    """Names and shapes that parameters of `shapes` have in the foreign format, in table order."""
    _relevant(rules, shapes)
    result: dict[str, Shape] = {}
    for entry in _used(rules, shapes):
        layer = 0 if entry.layered else None
        shape = _pack(entry, lambda path: _hollow(shapes[path]), layer).shape
        for name in _names(entry, _layers(entry, shapes)):
            result[name] = tuple(shape)
    return result


def _used(rules: Sequence[Rule], paths: Iterable[str]) -> list[Rule]:
    paths = set(paths)
    return [entry for entry in rules if any(target in paths for target in entry.targets)]


def _layers(entry: Rule, shapes: Shapes) -> int:
    first = next(target for target in entry.targets if target is not None)
    return shapes[first][0] if entry.layered else 1


def export(
    rules: Sequence[Rule], params: Mapping[str, np.ndarray], shapes: Shapes
) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters as (foreign name, array), one at a time, in table order."""
    _relevant(rules, shapes)
    for entry in _used(rules, shapes):
        # one read per parameter, not one per layer
        held = {path: np.asarray(params[path]) for path in entry.targets if path is not None}
        for layer, name in enumerate(_names(entry, _layers(entry, shapes))):
            array = _pack(entry, held.__getitem__, layer if entry.layered else None)
            yield name, np.ascontiguousarray(array)


def assemble(
    rules: Sequence[Rule], tensors: Tensors, shapes: Shapes, *, what: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Foreign tensors as (our path, array), one parameter at a time.

    Args:
        rules: the table of the format.
        tensors: the file's tensors; every one of them must be asked for by the table.
        shapes: our path -> shape, all of which are filled.
        what: how an error calls the file.

    Raises:
        WeightsError: missing, surplus or mis-shaped names, before anything is read; or a part
            that the format stores as zeros is not zero.
    """
    expected = foreign_shapes(rules, shapes)
    problem = complain(
        wanted=expected, found={name: t.shape for name, t in tensors.items()}, what=what
    )
    if problem:
        raise WeightsError(problem)
    relevant = _relevant(rules, shapes)

    def produce() -> Iterator[tuple[str, np.ndarray]]:
        for path, shape in shapes.items():
            entry, part = relevant[path]
            names = _names(entry, shape[0] if entry.layered else 1)
            yield path, _gather(entry, part, names, tensors, tuple(shape))

    return produce()


def _gather(
    entry: Rule, part: int, names: Sequence[str], tensors: Tensors, shape: Shape
) -> np.ndarray:
    if not entry.layered:
        return np.ascontiguousarray(_unpack(entry, tensors[names[0]], names[0])[part])
    out = np.empty(shape, np.result_type(*{tensors[name].dtype for name in names}))
    for layer, name in enumerate(names):
        out[layer] = _unpack(entry, tensors[name], name)[part]
    return out


def _unpack(entry: Rule, tensor: Tensor, name: str) -> tuple[np.ndarray, ...]:
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
    contents), `notes` lines for the summary.
    """

    config: dict[str, Any]
    rules: tuple[Rule, ...]
    tensors: Tensors
    files: Mapping[str, Any]
    source: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    base: Mapping[str, np.ndarray] = field(default_factory=dict)

    def params(self, shapes: Shapes, *, what: str) -> Iterator[tuple[str, np.ndarray]]:
        """Every parameter of `shapes`, checked before the first is read (see `assemble`)."""
        rest = {path: shape for path, shape in shapes.items() if path not in self.base}
        return chain(self.base.items(), assemble(self.rules, self.tensors, rest, what=what))


def complain(*, wanted: Shapes, found: Shapes, what: str) -> str:
    """Describe how `found` differs from `wanted`; "" when it does not.

    First ten and count of the missing, the surplus and the mis-shaped names, and the likely cause.
    """
    missing = set(wanted) - set(found)
    surplus = set(found) - set(wanted)
    wrong = [
        f"{name} is {list(found[name])}, expected {list(wanted[name])}"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    parts = [
        f"{len(names)} {kind}: {shorten(names)}"
        for names, kind in ((missing, "missing"), (surplus, "surplus"), (wrong, "of another shape"))
        if names
    ]
    if not parts:
        return ""
    cause = likely_cause(wanted=wanted, found=found)
    return f"{what} do not fit. " + "; ".join(parts) + (f". Likely cause: {cause}" if cause else "")


_LLAMA_WIDTHS = {3200: "3B", 4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B"}
# telling names of architectures that people hand in by mistake
_SIGNATURES = (
    ("gpt2", r"(transformer\.)?h\.\d+\.attn\.c_attn\.weight"),
    ("gpt_neox", r"(gpt_neox\.)?layers\.\d+\.attention\.query_key_value\.weight"),
    ("bert", r"(bert\.)?encoder\.layer\.\d+\.attention\.self\.query\.weight"),
    ("t5", r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.q\.weight"),
    ("whisper", r"(model\.)?encoder\.conv1\.weight"),
    ("llama", r"(model\.)?layers\.\d+\.self_attn\.q_proj\.weight"),
)


def architecture(names: Iterable[str]) -> str | None:
    """The model_type whose telling names occur in `names`, or None."""
    names = [name.removeprefix("base_model.model.") for name in names]
    for model_type, pattern in _SIGNATURES:
        if any(re.fullmatch(pattern, name) for name in names):
            return model_type
    return None


def likely_cause(*, wanted: Shapes, found: Shapes) -> str:
    """A guess, from names and shapes alone, at what somebody mixed up; "" when there is none."""
    kinds = architecture(wanted), architecture(found)
    if all(kinds) and kinds[0] != kinds[1]:
        return f"weights of another architecture: found {kinds[1]}, expected {kinds[0]}"
    audio = [n for n in found if re.search(r"audio_proj\.(\d+\.)?weight$", n)]
    if audio and not any("time_tr" in name for name in found):
        return (
            f"this is LTU, not LTU-AS: its {audio[0]} is {list(found[audio[0]])} and it has no "
            "time_tr/layer_tr (LTU-AS for Whisper large expects [4096, 1280])"
        )
    for name in wanted:
        if name in found and "embed_tokens" in name and len(found[name]) == 2:
            (_, here), (_, there) = found[name], wanted[name]
            if here != there:
                sizes = (_LLAMA_WIDTHS.get(w, f"width-{w}") for w in (here, there))
                return "this is a {} checkpoint over a {} base".format(*sizes)
            if tuple(found[name]) != tuple(wanted[name]):
                return f"another vocabulary: {found[name][0]} rows, expected {wanted[name][0]}"
    depth_found, depth_wanted = _depth(found), _depth(wanted)
    if depth_found and depth_wanted and depth_found != depth_wanted:
        return f"it has {depth_found} layers, expected {depth_wanted}"
    missing = set(wanted) - set(found)
    if missing and all("lora_" in name for name in missing):
        return "it has no LoRA on these projections"
    if missing and not set(found) - set(wanted):
        return "part of the weights was not saved or not downloaded"
    return ""


def _depth(names: Iterable[str]) -> int:
    """Highest layer number + 1 among foreign names; 0 when none is numbered."""
    numbers = (re.search(r"\.(?:layers|blk|blocks)\.(\d+)\.", f".{name}") for name in names)
    return max((int(match.group(1)) + 1 for match in numbers if match), default=0)
