"""Cycles and collective bytes of a compiled step, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once. Here each `while` is multiplied by its trip
count (`hlo_loops`).
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from ltu_jax.planning.hlo_loops import CallFrame, trip_count
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
    """Cycles and bytes of one device in one step.

    Attributes:
        cycles: sum of the compiler's estimates.
        collective_bytes: bytes of results, by kind.
        waiting_bytes: bytes over a chip's links that no computation can hide (synchronous ones).
        hidden_bytes: bytes over its links beside computation.
        loops: (name, trip count) of every loop; None where it could not be told and 1 was used.
        kernels: custom kernels, which carry no estimate, by name: how often each runs.
    """

    cycles: float
    collective_bytes: dict[str, float]
    waiting_bytes: float
    hidden_bytes: float
    loops: tuple[tuple[str, int | None], ...]
    kernels: dict[str, float]


def roll_up(text: str) -> HloCost:
    """Add up what the text of a compiled module says.

    Args:
        text: `compiled.as_text()` of a scheduled module.
    """
    reader = _Reader(parse(text))
    entry = next(op for op in reader.computations.values() if op.entry)
    reader.scheduled(CallFrame(computation=entry, caller=None, parent=None), times=1)
    return HloCost(
        cycles=reader.cycles,
        collective_bytes=dict(reader.collective_bytes),
        waiting_bytes=reader.waiting_bytes,
        hidden_bytes=reader.hidden_bytes,
        loops=tuple(reader.loops),
        kernels=dict(reader.kernels),
    )


class _Reader:
    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.cycles = self.waiting_bytes = self.hidden_bytes = 0.0
        self.collective_bytes: dict[str, float] = collections.Counter()
        self.kernels: dict[str, float] = collections.Counter()
        self.loops: list[tuple[str, int | None]] = []

    def scheduled(self, frame: CallFrame, *, times: float) -> None:
        """Add a computation whose instructions run one after the other on the core."""
        channels: set[str] = set()
        for op in frame.computation.instructions.values():
            self.cycles += times * op.cycles()
            if op.opcode == "while":
                count = trip_count(op, frame, self.computations)
                self.loops.append((op.name, count))
                body = self.computations[op.attribute("body")]
                inner = CallFrame(computation=body, caller=op, parent=frame)
                self.scheduled(inner, times=times * (1 if count is None else count))
            elif op.opcode == "conditional":
                self._dearest(op, frame, times=times)
            elif op.opcode == "call":
                called = self.computations[op.attribute("to_apply")]
                self.scheduled(CallFrame(computation=called, caller=op, parent=frame), times=times)
            else:
                self._one(op, frame.computation, times=times, channels=channels)

    def _dearest(self, op: Instruction, frame: CallFrame, *, times: float) -> None:
        """Add the branch with the most cycles."""
        branches = []
        for name in _branches(op):
            reader = _Reader(self.computations)
            called = self.computations[name]
            reader.scheduled(CallFrame(computation=called, caller=op, parent=frame), times=times)
            branches.append(reader)
        most = max(branches, key=lambda reader: reader.cycles)
        self.cycles += most.cycles
        self.waiting_bytes += most.waiting_bytes
        self.hidden_bytes += most.hidden_bytes
        self.loops += most.loops
        for name, size in most.collective_bytes.items():
            self.collective_bytes[name] += size
        for name, count in most.kernels.items():
            self.kernels[name] += count

    def _one(
        self, op: Instruction, inside: Computation, *, times: float, channels: set[str]
    ) -> None:
        """Add the kernels and collectives of an instruction and of what is fused into it."""
        for computation, inner, depth in self._with_fused(op, inside):
            if inner.opcode == "custom-call" and _is_kernel(inner):
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
        self, op: Instruction, inside: Computation, depth: int = 0
    ) -> Iterator[tuple[Computation, Instruction, int]]:
        yield inside, op, depth
        called = op.attribute("calls")
        if called in self.computations:
            fused = self.computations[called]
            for inner in fused.instructions.values():
                yield from self._with_fused(inner, fused, depth + 1)


def _branches(op: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", op.rest)
    if listed:
        return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
    return [op.attribute("true_computation"), op.attribute("false_computation")]


def _is_kernel(op: Instruction) -> bool:
    target = op.attribute("custom_call_target") or ""
    return "tpu_custom_call" in target or "mosaic" in target.lower()


def _result_bytes(op: Instruction) -> float:
    """Count the bytes of a collective's result; a "-start" lists its operand and more, too."""
    if not op.opcode.endswith("-start") or not op.shape.startswith("("):
        return shape_bytes(op.shape)
    sizes = [math.prod(dims) * shape_bytes(f"{kind}[]") for kind, dims in arrays(op.shape)]
    if op.opcode == "all-reduce-start":
        return sum(sizes)
    return max(sizes, default=0.0)


def _link_bytes(op: Instruction, inside: Computation) -> float:
    """Count the bytes that a chip sends for a collective over many chips.

    A ring moves all but a chip's share of the larger of operand and result; an all-reduce is a
    scatter and a gather, and moves it twice.
    """
    if op.opcode.startswith("all-reduce"):
        return 2 * _result_bytes(op)
    if op.opcode.startswith("reduce-scatter"):
        shapes = (inside.instructions[name].shape for name in op.operands)
        return sum(map(shape_bytes, shapes))
    return _result_bytes(op)
