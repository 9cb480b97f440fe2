"""Bytes of a device's main memory that an instruction reads and writes.

Each array counts once, but for one of which only a part is touched: what a slice or a gather takes
of it, and what an update or a scatter writes into it where it lies.
"""

from sharding.pod_plan.hlo import Computation, Instruction, Program

_READS_PART = ("dynamic-slice", "gather", "slice")
# Operand that is written -> index of what is written into it.
_WRITES_PART = {"dynamic-update-slice": 1, "scatter": 2}
# The same bytes under another shape.
_SAME = ("bitcast", "reshape", "copy", "convert", "transpose", "get-tuple-element")


def moved_bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Of `instruction` of `computation`."""
    inner = computation
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.calls]
    total = 0
    for index, operand in enumerate(computation.operands(instruction)):
        whole = sum(shape.bytes for shape in operand.shapes if shape.space == 0)
        if not whole:
            continue
        part = (
            _part_read(inner, inner.parameters[index])
            if inner is not computation
            else _part_of_operand(computation, instruction, index)
        )
        total += whole if part is None else min(part, whole)
    return total + _written(inner, inner.root if inner is not computation else instruction)


def _part_read(inner: Computation, source: Instruction) -> int | None:
    """Of a fusion's parameter, or of the same bytes under another shape; None if all of it."""
    total = 0
    for user in inner.users(source.name):
        if user.opcode in _SAME:
            part = _part_read(inner, user)
            if part is None:
                return None if user.shapes[0].size else 0
            total += part
            continue
        parts = [
            _part_of_operand(inner, user, index)
            for index, name in enumerate(user.operands)
            if name == source.name
        ]
        if None in parts:
            return None
        total += sum(parts)
    return total if inner.users(source.name) else None


def _part_of_operand(computation: Computation, user: Instruction, index: int) -> int | None:
    """What `user` reads of its operand `index`; None if all of it."""
    if index == 0 and user.opcode in _READS_PART:
        return user.shapes[0].bytes
    if index == 0 and user.opcode in _WRITES_PART:
        return 0  # what is written is counted as such
    return None


def _written(inner: Computation, root: Instruction) -> int:
    """Of the result: where it is an array with a part written anew, that part."""
    if root.opcode == "tuple":
        return sum(_written(inner, one) for one in inner.operands(root))
    source = root
    while source.opcode in ("bitcast", "copy", "convert") and inner.operands(source):
        source = inner.operands(source)[0]
    if source.opcode in _WRITES_PART:
        update = inner.operands(source)[_WRITES_PART[source.opcode]]
        if root.shapes[0].space == 0:
            return update.shapes[0].bytes
    return sum(shape.bytes for shape in root.shapes if shape.space == 0)
