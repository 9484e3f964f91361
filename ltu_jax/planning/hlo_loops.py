"""How often the loops of compiled HLO run.

The trip count is the one the compiler states, or the one that follows from the counter's first
value, its step and the comparison in the condition, followed through tuples of enclosing loops.
"""

import dataclasses
import re

from ltu_jax.planning.hlo_text import Computation, Instruction

_PASSED = ("copy", "bitcast", "convert", "get-tuple-element", "reshape", "optimization-barrier")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallFrame:
    """A computation being read, and the instruction that called it."""

    computation: Computation
    caller: Instruction | None
    parent: "CallFrame | None"


def trip_count(
    loop: Instruction, frame: CallFrame, computations: dict[str, Computation]
) -> int | None:
    """Count the rounds of a `while`; None where the counter cannot be followed."""
    stated = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if stated:
        return int(stated.group(1))
    condition = computations[loop.attribute("condition")]
    body = computations[loop.attribute("body")]
    inner = CallFrame(computation=condition, caller=loop, parent=frame)
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
    """Read (direction, left, right) of the condition's root, seen through one fusion."""
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
    op = fused.instructions[name]
    if op.opcode == "parameter":
        return fusion.operands[int(op.argument)]
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
    """Return the index of a value in the loop's tuple."""
    op = computation.instructions[name]
    while op.opcode in _PASSED:
        source = computation.instructions[op.operands[0]]
        if op.opcode == "get-tuple-element" and source.opcode == "parameter":
            return int(op.attribute("index"))
        op = source
    return None


def _constant(
    name: str, frame: CallFrame | None, computations: dict[str, Computation]
) -> int | None:
    """Read the value of a constant scalar, perhaps handed into loops from outside."""
    if frame is None:
        return None
    op = frame.computation.instructions[name]
    while op.opcode in ("copy", "bitcast", "convert", "reshape"):
        op = frame.computation.instructions[op.operands[0]]
    if op.opcode == "constant":
        return int(op.argument) if re.fullmatch(r"-?\d+", op.argument) else None
    index = _element(op.name, frame.computation)
    if index is None or frame.caller is None or frame.caller.opcode != "while":
        return None
    body = computations[frame.caller.attribute("body")]
    unchanged = body.root.opcode == "tuple" and _element(body.root.operands[index], body) == index
    if not unchanged:
        return None
    return _entry_value(frame.caller, index, frame.parent, computations)


def _entry_value(
    loop: Instruction, index: int, frame: CallFrame | None, computations: dict[str, Computation]
) -> int | None:
    """Read the value of an element of the loop's tuple before its first round."""
    if frame is None:
        return None
    op = frame.computation.instructions[loop.operands[0]]
    while op.opcode in ("copy", "optimization-barrier"):
        op = frame.computation.instructions[op.operands[0]]
    if op.opcode != "tuple":
        return None
    return _constant(op.operands[index], frame, computations)


def _step(
    body: Computation,
    index: int,
    loop: Instruction,
    frame: CallFrame,
    computations: dict[str, Computation],
) -> int | None:
    """Return the amount that one round adds to an element of the loop's tuple."""
    if body.root.opcode != "tuple":
        return None
    op = body.instructions[body.root.operands[index]]
    while op.opcode in ("copy", "bitcast"):
        op = body.instructions[op.operands[0]]
    if op.opcode == "fusion":
        fused = computations[op.attribute("calls")]
        if fused.root.opcode not in ("add", "subtract"):
            return None
        values = [_fused_value(name, fused, op) for name in fused.root.operands]
        sign, frame_of = (1 if fused.root.opcode == "add" else -1), body
        return _sum_step(values, sign, index, frame_of, loop, frame, computations)
    if op.opcode not in ("add", "subtract"):
        return None
    sign = 1 if op.opcode == "add" else -1
    return _sum_step(list(op.operands), sign, index, body, loop, frame, computations)


def _fused_value(name: str, fused: Computation, fusion: Instruction) -> str | int | None:
    op = fused.instructions[name]
    if op.opcode == "constant" and re.fullmatch(r"-?\d+", op.argument):
        return int(op.argument)
    return _outside(name, fused, fusion)


def _sum_step(
    values: list[str | int | None],
    sign: int,
    index: int,
    body: Computation,
    loop: Instruction,
    frame: CallFrame,
    computations: dict[str, Computation],
) -> int | None:
    inner = CallFrame(computation=body, caller=loop, parent=frame)
    left, right = values
    orders = [(left, right)] if sign < 0 else [(left, right), (right, left)]
    for counter, added in orders:
        if not isinstance(counter, str) or _element(counter, body) != index or added is None:
            continue
        value = added if isinstance(added, int) else _constant(added, inner, computations)
        if value is not None:
            return sign * value
    return None
