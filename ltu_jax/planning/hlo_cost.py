"""Cycles, products and collective bytes of a compiled step, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once. Here each `while` is multiplied by its trip
count: the one the compiler states, or the one that follows from the counter's first value, its step
and the comparison in the condition.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from ltu_jax.planning.hlo_text import Computation, Instruction, arrays, parse, shape_bytes

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_PASSED = ("copy", "bitcast", "convert", "get-tuple-element", "reshape", "optimization-barrier")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HloCost:
    """What one device does in one step.

    Attributes:
        cycles: sum of the compiler's estimates.
        flops: of convolutions and dots, two per multiplication with addition.
        collective_bytes: bytes of results, by kind.
        waiting_bytes: the part of them that no computation can hide (synchronous ones).
        loops: (name, trip count) of every loop; None where it could not be told and 1 was used.
        kernels: custom kernels, which carry no estimate, by name: how often each runs.
    """

    cycles: float
    flops: float
    collective_bytes: dict[str, float]
    waiting_bytes: float
    loops: tuple[tuple[str, int | None], ...]
    kernels: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """A computation being read, and the instruction that called it."""

    computation: Computation
    caller: Instruction | None
    parent: "_Frame | None"


def roll_up(text: str) -> HloCost:
    """Read the text of a compiled module.

    Args:
        text: `compiled.as_text()` of a scheduled module.
    """
    reader = _Reader(parse(text))
    entry = next(one for one in reader.computations.values() if one.entry)
    reader.scheduled(_Frame(computation=entry, caller=None, parent=None), times=1)
    return HloCost(
        cycles=reader.cycles,
        flops=reader.flops,
        collective_bytes=dict(reader.collective_bytes),
        waiting_bytes=reader.waiting_bytes,
        loops=tuple(reader.loops),
        kernels=dict(reader.kernels),
    )


class _Reader:
    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.cycles = self.flops = self.waiting_bytes = 0.0
        self.collective_bytes: dict[str, float] = collections.Counter()
        self.kernels: dict[str, float] = collections.Counter()
        self.loops: list[tuple[str, int | None]] = []

    def scheduled(self, frame: _Frame, *, times: float) -> None:
        """Add a computation whose instructions run one after the other on the core."""
        channels: set[str] = set()
        for one in frame.computation.instructions.values():
            self.cycles += times * one.cycles()
            if one.opcode == "while":
                count = trip_count(one, frame, self.computations)
                self.loops.append((one.name, count))
                body = self.computations[one.attribute("body")]
                inner = _Frame(computation=body, caller=one, parent=frame)
                self.scheduled(inner, times=times * (1 if count is None else count))
            elif one.opcode == "conditional":
                self._dearest(one, frame, times=times)
            elif one.opcode == "call":
                called = self.computations[one.attribute("to_apply")]
                self.scheduled(_Frame(computation=called, caller=one, parent=frame), times=times)
            else:
                self._one(one, frame.computation, times=times, channels=channels)

    def _dearest(self, one: Instruction, frame: _Frame, *, times: float) -> None:
        """Add the branch with the most cycles."""
        branches = []
        for name in _branches(one):
            reader = _Reader(self.computations)
            called = self.computations[name]
            reader.scheduled(_Frame(computation=called, caller=one, parent=frame), times=times)
            branches.append(reader)
        most = max(branches, key=lambda reader: (reader.cycles, reader.flops))
        self.cycles += most.cycles
        self.flops += most.flops
        self.waiting_bytes += most.waiting_bytes
        self.loops += most.loops
        for name, size in most.collective_bytes.items():
            self.collective_bytes[name] += size
        for name, count in most.kernels.items():
            self.kernels[name] += count

    def _one(
        self, one: Instruction, inside: Computation, *, times: float, channels: set[str]
    ) -> None:
        """Add the products and collectives of an instruction and of what is fused into it."""
        for computation, inner, depth in self._with_fused(one, inside):
            if inner.opcode in ("convolution", "dot"):
                self.flops += times * product_flops(inner, computation)
            elif inner.opcode == "custom-call" and _is_kernel(inner):
                self.kernels[inner.attribute("custom_call_target").strip('"')] += times
            kind = inner.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            # A collective that is overlapped with fusions stands in each of them, always with the
            # same channel.
            channel = inner.attribute("channel_id") or inner.name
            if channel in channels:
                continue
            channels.add(channel)
            size = times * _result_bytes(inner)
            self.collective_bytes[kind] += size
            if depth == 0 and kind == inner.opcode:
                self.waiting_bytes += size

    def _with_fused(
        self, one: Instruction, inside: Computation, depth: int = 0
    ) -> Iterator[tuple[Computation, Instruction, int]]:
        yield inside, one, depth
        called = one.attribute("calls")
        if called in self.computations:
            fused = self.computations[called]
            for inner in fused.instructions.values():
                yield from self._with_fused(inner, fused, depth + 1)


def _branches(one: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    if listed:
        return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
    return [one.attribute("true_computation"), one.attribute("false_computation")]


def _is_kernel(one: Instruction) -> bool:
    target = one.attribute("custom_call_target") or ""
    return "tpu_custom_call" in target or "mosaic" in target.lower()


def _result_bytes(one: Instruction) -> float:
    """Bytes of a collective's result; a "-start" also lists its operand and control words."""
    if not one.opcode.endswith("-start") or not one.shape.startswith("("):
        return shape_bytes(one.shape)
    sizes = [math.prod(dims) * shape_bytes(f"{kind}[]") for kind, dims in arrays(one.shape)]
    if one.opcode == "all-reduce-start":
        return sum(sizes)
    return max(sizes, default=0.0)


def product_flops(one: Instruction, inside: Computation) -> float:
    """FLOPs of a convolution or dot; taps that fall on padding or holes do not count.

    The TPU compiler writes a batched matrix product as a convolution with spatial dimensions in
    which a single tap falls on data, so the taps have to be counted.
    """
    (_, output), *_ = arrays(one.shape)
    left, right = (arrays(inside.instructions[name].shape)[0][1] for name in one.operands[:2])
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
        dims = [int(dim) for dim in contracted.group(1).split(",") if dim] if contracted else []
        return 2.0 * math.prod(output) * math.prod(left[dim] for dim in dims)
    lhs, kernel, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.rest).groups()
    window = _window(one.rest)
    taps = 1
    for dim in sorted(set(kernel) - set("io")):
        index = int(dim)
        taps *= _taps(
            left[lhs.index(dim)],
            right[kernel.index(dim)],
            output[out.index(dim)],
            **{key: values[index] for key, values in window.items()},
        )
    batch = output[out.index("b")]
    features = output[out.index("f")]
    groups = re.search(r"batch_group_count=(\d+)", one.rest)
    batch_groups = int(groups.group(1)) if groups else 1
    per_group = left[lhs.index("b")] // batch_groups if batch_groups > 1 else batch
    return 2.0 * per_group * features * right[kernel.index("i")] * taps


def _window(rest: str) -> dict[str, list]:
    found = re.search(r"window=\{([^}]*)\}", rest)
    given = dict(re.findall(r"(\w+)=(\S+)", found.group(1))) if found else {}
    rank = len(given["size"].split("x")) if "size" in given else 0
    numbers = {
        key: [int(v) for v in given[key].split("x")] if key in given else [1] * rank
        for key in ("stride", "lhs_dilate", "rhs_dilate")
    }
    pads = given["pad"].split("x") if "pad" in given else ["0_0"] * rank
    reverse = given["rhs_reversal"].split("x") if "rhs_reversal" in given else ["0"] * rank
    return {
        **numbers,
        "pad": [int(pad.split("_")[0]) for pad in pads],
        "reverse": [flag == "1" for flag in reverse],
    }


def _taps(
    size: int,
    kernel: int,
    output: int,
    *,
    stride: int,
    lhs_dilate: int,
    rhs_dilate: int,
    pad: int,
    reverse: bool,
) -> int:
    """How many (output, kernel) pairs of one spatial dimension fall on an input element."""
    del reverse  # turns the kernel round, which changes no count over all its taps
    reach = (size - 1) * lhs_dilate
    count = 0
    for tap in range(kernel):
        first = tap * rhs_dilate - pad
        if stride == 1 and lhs_dilate == 1:
            count += max(0, min(output - 1, reach - first) - max(0, -first) + 1)
            continue
        places = (first + place * stride for place in range(output))
        count += sum(0 <= place <= reach and place % lhs_dilate == 0 for place in places)
    return count


# --- how often a loop runs ------------------------------------------------------------------------


def trip_count(
    loop: Instruction, frame: _Frame, computations: dict[str, Computation]
) -> int | None:
    """How often the body of a `while` runs; None where the counter cannot be followed."""
    stated = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if stated:
        return int(stated.group(1))
    condition = computations[loop.attribute("condition")]
    body = computations[loop.attribute("body")]
    inner = _Frame(computation=condition, caller=loop, parent=frame)
    compared = _comparison(condition, computations)
    if compared is None:
        return None
    direction, left, right = compared
    for counter, limit, way in ((left, right, direction), (right, left, _turned(direction))):
        index = _element(counter, condition)
        bound = _constant(limit, inner, computations)
        if index is None or bound is None:
            continue
        first = _entry_value(loop, index, frame, computations)
        step = _step(body, index, loop, frame, computations)
        if first is not None and step:
            return _count(first, bound, step, way)
    return None


def _comparison(
    condition: Computation, computations: dict[str, Computation]
) -> tuple[str, str, str] | None:
    """(direction, left, right) of the condition's root, seen through one fusion."""
    root = condition.root
    while root.opcode in _PASSED:
        root = condition.instructions[root.operands[0]]
    if root.opcode == "compare":
        return (root.attribute("direction"), *root.operands)
    if root.opcode != "fusion":
        return None
    fused = computations[root.attribute("calls")]
    if fused.root.opcode != "compare":
        return None
    sides = [_outside(name, fused, root) for name in fused.root.operands]
    if None in sides:
        return None
    return (fused.root.attribute("direction"), *sides)


def _outside(name: str, fused: Computation, fusion: Instruction) -> str | None:
    one = fused.instructions[name]
    if one.opcode == "parameter":
        return fusion.operands[int(one.argument)]
    return None


def _turned(direction: str) -> str:
    return {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction, direction)


def _count(first: int, bound: int, step: int, direction: str) -> int | None:
    if direction == "NE":
        return (bound - first) // step
    if direction in ("LT", "LE") and step > 0:
        return max(0, -(-(bound - first + (direction == "LE")) // step))
    if direction in ("GT", "GE") and step < 0:
        return max(0, -(-(first - bound + (direction == "GE")) // -step))
    return None


def _element(name: str, computation: Computation) -> int | None:
    """Which element of the loop's tuple a value is."""
    one = computation.instructions[name]
    while one.opcode in _PASSED:
        source = computation.instructions[one.operands[0]]
        if one.opcode == "get-tuple-element" and source.opcode == "parameter":
            return int(one.attribute("index"))
        one = source
    return None


def _constant(name: str, frame: _Frame | None, computations: dict[str, Computation]) -> int | None:
    """Value of a scalar that is a constant, perhaps handed into loops from outside."""
    if frame is None:
        return None
    one = frame.computation.instructions[name]
    while one.opcode in ("copy", "bitcast", "convert", "reshape"):
        one = frame.computation.instructions[one.operands[0]]
    if one.opcode == "constant":
        return int(one.argument) if re.fullmatch(r"-?\d+", one.argument) else None
    index = _element(one.name, frame.computation)
    if index is None or frame.caller is None or frame.caller.opcode != "while":
        return None
    body = computations[frame.caller.attribute("body")]
    kept = body.root.opcode == "tuple" and _element(body.root.operands[index], body) == index
    if not kept:
        return None
    return _entry_value(frame.caller, index, frame.parent, computations)


def _entry_value(
    loop: Instruction, index: int, frame: _Frame | None, computations: dict[str, Computation]
) -> int | None:
    """Value of an element of the loop's tuple before its first round."""
    if frame is None:
        return None
    one = frame.computation.instructions[loop.operands[0]]
    while one.opcode in ("copy", "optimization-barrier"):
        one = frame.computation.instructions[one.operands[0]]
    if one.opcode != "tuple":
        return None
    return _constant(one.operands[index], frame, computations)


def _step(
    body: Computation,
    index: int,
    loop: Instruction,
    frame: _Frame,
    computations: dict[str, Computation],
) -> int | None:
    """What one round adds to an element of the loop's tuple."""
    if body.root.opcode != "tuple":
        return None
    one = body.instructions[body.root.operands[index]]
    while one.opcode in ("copy", "bitcast"):
        one = body.instructions[one.operands[0]]
    if one.opcode == "fusion":
        fused = computations[one.attribute("calls")]
        if fused.root.opcode not in ("add", "subtract"):
            return None
        values = [_fused_value(name, fused, one) for name in fused.root.operands]
        sign, frame_of = (1 if fused.root.opcode == "add" else -1), body
        return _sum_step(values, sign, index, frame_of, loop, frame, computations)
    if one.opcode not in ("add", "subtract"):
        return None
    sign = 1 if one.opcode == "add" else -1
    return _sum_step(list(one.operands), sign, index, body, loop, frame, computations)


def _fused_value(name: str, fused: Computation, fusion: Instruction) -> str | int | None:
    one = fused.instructions[name]
    if one.opcode == "constant" and re.fullmatch(r"-?\d+", one.argument):
        return int(one.argument)
    return _outside(name, fused, fusion)


def _sum_step(
    values: list[str | int | None],
    sign: int,
    index: int,
    body: Computation,
    loop: Instruction,
    frame: _Frame,
    computations: dict[str, Computation],
) -> int | None:
    inner = _Frame(computation=body, caller=loop, parent=frame)
    left, right = values
    orders = [(left, right)] if sign < 0 else [(left, right), (right, left)]
    for counter, added in orders:
        if not isinstance(counter, str) or _element(counter, body) != index or added is None:
            continue
        value = added if isinstance(added, int) else _constant(added, inner, computations)
        if value is not None:
            return sign * value
    return None
