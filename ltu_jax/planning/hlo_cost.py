"""Cycles, products and collective bytes of a compiled step, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once. Here each `while` is multiplied by its trip
count (`hlo_loops`).
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from ltu_jax.planning.hlo_loops import Frame, trip_count
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class HloCost:
    """What one device does in one step.

    Attributes:
        cycles: sum of the compiler's estimates.
        flops: of convolutions and dots, two per multiplication with addition.
        collective_bytes: bytes of results, by kind.
        waiting_bytes: bytes over a chip's links that no computation can hide (synchronous ones).
        hidden_bytes: bytes over its links beside computation.
        loops: (name, trip count) of every loop; None where it could not be told and 1 was used.
        kernels: custom kernels, which carry no estimate, by name: how often each runs.
    """

    cycles: float
    flops: float
    collective_bytes: dict[str, float]
    waiting_bytes: float
    hidden_bytes: float
    loops: tuple[tuple[str, int | None], ...]
    kernels: dict[str, float]


def roll_up(text: str) -> HloCost:
    """Read the text of a compiled module.

    Args:
        text: `compiled.as_text()` of a scheduled module.
    """
    reader = _Reader(parse(text))
    entry = next(one for one in reader.computations.values() if one.entry)
    reader.scheduled(Frame(computation=entry, caller=None, parent=None), times=1)
    return HloCost(
        cycles=reader.cycles,
        flops=reader.flops,
        collective_bytes=dict(reader.collective_bytes),
        waiting_bytes=reader.waiting_bytes,
        hidden_bytes=reader.hidden_bytes,
        loops=tuple(reader.loops),
        kernels=dict(reader.kernels),
    )


class _Reader:
    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.cycles = self.flops = self.waiting_bytes = self.hidden_bytes = 0.0
        self.collective_bytes: dict[str, float] = collections.Counter()
        self.kernels: dict[str, float] = collections.Counter()
        self.loops: list[tuple[str, int | None]] = []

    def scheduled(self, frame: Frame, *, times: float) -> None:
        """Add a computation whose instructions run one after the other on the core."""
        channels: set[str] = set()
        for one in frame.computation.instructions.values():
            self.cycles += times * one.cycles()
            if one.opcode == "while":
                count = trip_count(one, frame, self.computations)
                self.loops.append((one.name, count))
                body = self.computations[one.attribute("body")]
                inner = Frame(computation=body, caller=one, parent=frame)
                self.scheduled(inner, times=times * (1 if count is None else count))
            elif one.opcode == "conditional":
                self._dearest(one, frame, times=times)
            elif one.opcode == "call":
                called = self.computations[one.attribute("to_apply")]
                self.scheduled(Frame(computation=called, caller=one, parent=frame), times=times)
            else:
                self._one(one, frame.computation, times=times, channels=channels)

    def _dearest(self, one: Instruction, frame: Frame, *, times: float) -> None:
        """Add the branch with the most cycles."""
        branches = []
        for name in _branches(one):
            reader = _Reader(self.computations)
            called = self.computations[name]
            reader.scheduled(Frame(computation=called, caller=one, parent=frame), times=times)
            branches.append(reader)
        most = max(branches, key=lambda reader: (reader.cycles, reader.flops))
        self.cycles += most.cycles
        self.flops += most.flops
        self.waiting_bytes += most.waiting_bytes
        self.hidden_bytes += most.hidden_bytes
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
            sent = times * _link_bytes(inner, computation)
            if depth == 0 and kind == inner.opcode:
                self.waiting_bytes += sent
            else:
                self.hidden_bytes += sent

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


def _link_bytes(one: Instruction, inside: Computation) -> float:
    """Bytes that a chip sends for a collective over many chips.

    A ring moves all but a chip's share of the larger of operand and result; an all-reduce is a
    scatter and a gather, and moves it twice.
    """
    if one.opcode.startswith("all-reduce"):
        return 2 * _result_bytes(one)
    if one.opcode.startswith("reduce-scatter"):
        shapes = (inside.instructions[name].shape for name in one.operands)
        return sum(map(shape_bytes, shapes))
    return _result_bytes(one)


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
