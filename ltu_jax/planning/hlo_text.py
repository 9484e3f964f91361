"""Reading compiled HLO text: computations, instructions, shapes.

Only what the roll-up needs is read. The grammar is that of `compiled.as_text()`; an instruction is
one line `%name = shape opcode(operands), attributes`.
"""

import dataclasses
import functools
import math
import re

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .+ \{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_BITS = re.compile(r"\d+")
_BYTES = {"pred": 1.0, "token": 0.0, "opaque": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line: the text of its shape, its opcode, operand names, and all that follows."""

    name: str
    root: bool
    shape: str
    opcode: str
    operands: tuple[str, ...]
    argument: str
    rest: str

    def attribute(self, key: str) -> str | None:
        """Read the value of `key=value` after the operands, without a leading %; None if absent."""
        match = re.search(rf"\b{key}=%?([^,\s]+)", self.rest)
        return match.group(1) if match else None

    def cycles(self) -> int:
        """Read the compiler's estimated cycles, 0 where it gives none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(match.group(1)) if match else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation:
    """A named list of instructions in the order of the text."""

    name: str
    entry: bool
    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(op for op in self.instructions.values() if op.root)


def parse(text: str) -> dict[str, Computation]:
    """Read the computations of a module, by name."""
    computations: dict[str, Computation] = {}
    header, lines = None, []
    for line in text.splitlines():
        if header is None:
            header = _HEADER.match(line)
            lines = []
        elif line.startswith("}"):
            name = header.group(2)
            computations[name] = Computation(
                name=name,
                entry=header.group(1) is not None,
                instructions={op.name: op for op in map(_instruction, lines) if op},
            )
            header = None
        else:
            lines.append(line)
    return computations


def _instruction(line: str) -> Instruction | None:
    start = _NAME.match(line)
    if start is None:
        return None
    shape_end = _shape_end(line, start.end())
    shape = line[start.end() : shape_end]
    opcode = _OPCODE.match(line, shape_end + 1)
    if opcode is None:
        return None
    close = _closing(line, opcode.end() - 1)
    argument = line[opcode.end() : close]
    return Instruction(
        name=start.group(2),
        root=start.group(1) is not None,
        shape=shape,
        opcode=opcode.group(1),
        operands=tuple(_OPERAND.findall(argument)),
        argument=argument,
        rest=line[close + 1 :],
    )


def _shape_end(line: str, start: int) -> int:
    """Find the end of a shape: of a tuple its closing parenthesis, of an array the next space."""
    if line[start] == "(":
        return _closing(line, start) + 1
    return line.index(" ", start)


def _closing(line: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(line)):
        if line[place] == "(":
            depth += 1
        elif line[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    return len(line)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """List the arrays of a shape text as (element type, dimensions), layouts left out."""
    return [
        (kind, tuple(int(size) for size in sizes.split(",") if size))
        for kind, sizes in _ARRAY.findall(re.sub(r"\{[^}]*\}", "", shape))
    ]


def shape_bytes(shape: str) -> float:
    """Count the bytes of a shape text; a tuple counts all its parts."""
    return sum(math.prod(sizes) * _element_bytes(kind) for kind, sizes in arrays(shape))


def _element_bytes(kind: str) -> float:
    if kind in _BYTES:
        return _BYTES[kind]
    # s8, bf16, f32, u4, c64, f8e4m3fn: the first number is the width in bits.
    bits = _BITS.search(kind)
    return int(bits.group()) / 8 if bits else 0.0
