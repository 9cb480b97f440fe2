"""The optimised program of a compiled step, read from its text: computations and instructions.

`compiled.as_text()` is the only form of it that every backend gives. It is in the order in which
the instructions run (`is_scheduled=true`). Read here is what a plan needs: names, shapes, operands,
and attributes by name; of what stands inside a backend's own config, single numbers.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cached_property

_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16,
    "s32": 32, "u32": 32, "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64,
    "c64": 64, "c128": 128, "token": 0,
    "f4e2m1fn": 4, "f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3b11fnuz": 8, "f8e4m3fnuz": 8, "f8e5m2fnuz": 8,
    "f8e8m0fnu": 8, "f8e4m3": 8, "f8e3m4": 8,
}  # fmt: skip
# An array's type: dtype, dimensions, and a layout with its tiles and memory space.
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,<=]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9\-]*)\(")
_COMMENT = re.compile(r"/\*.*?\*/")

# Memory spaces of a TPU program: of the chip's fast memory, and of the host's.
FAST_MEMORY, HOST_MEMORY = 1, 5


@dataclass(frozen=True)
class Shape:
    """An array.

    Attributes:
      space: where it lies: 0 is the device's main memory.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return -(-self.size * _BITS[self.dtype] // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Instruction:
    """One line of the program.

    Attributes:
      shapes: of its result, those of a tuple one after another.
      operands: names of instructions of the same computation.
      inner: what stands between the parentheses, operands or a constant's value.
      attributes: the text after them.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inner: str
    attributes: str
    is_root: bool = False

    def attribute(self, name: str) -> str | None:
        """The word or the bracketed list that follows `name=`."""
        found = re.search(rf"\b{name}=(%?[\w.\-]+|\{{[^}}]*\}})", self.attributes)
        return found and found.group(1).lstrip("%")

    @cached_property
    def calls(self) -> str | None:
        """The computation that a fusion or a call runs."""
        return self.attribute("calls") or self.attribute("to_apply")

    @cached_property
    def op_name(self) -> str:
        """Where it comes from in the Python program; empty where the compiler made it."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @cached_property
    def target(self) -> str:
        """Of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @cached_property
    def estimated_cycles(self) -> int | None:
        """The TPU compiler's own estimate."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        cycles = int(found.group(1)) if found else None
        return None if cycles == 2**63 - 1 else cycles

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)


@dataclass
class Computation:
    """Instructions in the order in which they run, by name."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @cached_property
    def root(self) -> Instruction:
        return next(one for one in self.instructions.values() if one.is_root)

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        found = (one for one in self.instructions.values() if one.opcode == "parameter")
        return {int(one.inner): one for one in found}

    @cached_property
    def _users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found

    def users(self, name: str) -> list[Instruction]:
        """The instructions that take the result of `name`."""
        return self._users.get(name, [])

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions whose results `instruction` takes."""
        return [self.instructions[name] for name in instruction.operands]


@dataclass(frozen=True)
class Program:
    """Attributes:
    computations: by name.
    entry: the one that a step runs.
    """

    computations: dict[str, Computation]
    entry: Computation


def parse_program(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry = current = None
    pending: list[str] = []

    def finish() -> None:
        if pending:
            instruction = _parse_instruction(" ".join(pending))
            current.instructions[instruction.name] = instruction
            pending.clear()

    for line in text.splitlines():
        if current is None:
            if header := _COMPUTATION.match(line):
                current = computations[header.group(2)] = Computation(header.group(2))
                entry = current if header.group(1) else entry
        elif line == "}" or line.startswith("}, "):  # perhaps which thread runs it
            finish()
            current = None
        elif _INSTRUCTION.match(line):
            finish()
            pending.append(line)
        elif line.strip():  # a kernel's metadata may hold line breaks
            pending.append(line)
    return Program(computations, entry)


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Every array of a type, such as `(f32[2,8]{1,0}, s32[])`."""
    shapes = []
    for dtype, dims, layout in _ARRAY.findall(_COMMENT.sub("", text)):
        if dtype in _BITS:
            space = _SPACE.search(layout)
            sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
            shapes.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(shapes)


def _parse_instruction(line: str) -> Instruction:
    start = _INSTRUCTION.match(line)
    rest = line[start.end() :]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = _OPCODE.match(rest, end)
    first = opcode.end() - 1
    last = first + _closing(rest[first:])
    inner = _COMMENT.sub("", rest[first + 1 : last])
    operands = () if opcode.group(1) in ("constant", "parameter") else _names(inner)
    return Instruction(
        name=start.group(2),
        opcode=opcode.group(1),
        shapes=parse_shapes(rest[:end]),
        operands=operands,
        inner=inner,
        attributes=rest[last + 1 :],
        is_root=start.group(1) is not None,
    )


def _names(inner: str) -> tuple[str, ...]:
    return tuple(re.findall(r"%([\w.\-]+)", inner))


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the one at the start of `text`."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.start()
    raise ValueError(f"no closing parenthesis: {text[:200]}")
