"""How often a loop of the program runs.

A GPU program says it (`known_trip_count`). A TPU program does not: the condition compares an
element of what the loop carries with a limit, the element begins somewhere, and the body adds a
constant to it. Loops whose limit depends on data have no count.
"""

import re

from sharding.pod_plan.hlo import Computation, Instruction, Program

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# What hands on its operand's value.
_SAME = ("copy", "bitcast", "convert", "copy-done", "copy-start", "reshape")


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """Of the `while` instruction `loop` of `computation`; None if it depends on data."""
    if known := _KNOWN.search(loop.attributes):
        return int(known.group(1))
    condition = program.computations[loop.attribute("condition")]
    body = program.computations[loop.attribute("body")]
    compare = _comparison(program, condition)
    if compare is None:
        return None
    sides, direction = compare
    start = computation.operands(loop)[0]
    if sides[0][0] == "constant":  # the limit stands first
        sides, direction = sides[::-1], {"GT": "LT", "GE": "LE", "LT": "GT"}.get(direction)
    (kind, counter), limit = sides
    if kind != "element" or direction not in ("LT", "LE", "NE", "GT"):
        return None
    step = _added(body, counter)
    first = _initial(computation, start, counter)
    last = limit[1] if limit[0] == "constant" else _initial(computation, start, limit[1])
    if limit[0] == "element" and not _is_kept(body, limit[1]):
        return None
    if step in (None, 0) or first is None or last is None:
        return None
    last += direction == "LE"
    return max(0, -(-(last - first) // step))


def _comparison(program: Program, condition: Computation):
    """What the root of a condition compares, two of ("constant", value) or ("element", index), and
    how."""
    root = condition.root
    if root.opcode == "fusion":
        inner = program.computations[root.calls]
        if inner.root.opcode != "compare":
            return None
        outer = condition.operands(root)
        sides = []
        for operand in inner.operands(inner.root):
            operand = _source(inner, operand)
            if operand.opcode == "parameter":
                sides.append(_side(condition, outer[int(operand.inner)]))
            else:
                sides.append(_side(inner, operand))
        root = inner.root
    elif root.opcode == "compare":
        sides = [_side(condition, operand) for operand in condition.operands(root)]
    else:
        return None
    if None in sides:
        return None
    return sides, root.attribute("direction")


def _side(computation: Computation, instruction: Instruction):
    instruction = _source(computation, instruction)
    if instruction.opcode == "constant":
        return ("constant", int(instruction.inner))
    if instruction.opcode == "get-tuple-element":
        return ("element", _index(instruction))
    return None


def _source(computation: Computation, instruction: Instruction) -> Instruction:
    while instruction.opcode in _SAME:
        (instruction,) = computation.operands(instruction)[:1]
    return instruction


def _index(instruction: Instruction) -> int:
    return int(instruction.attribute("index"))


def _initial(computation: Computation, start: Instruction, index: int) -> int | None:
    """The constant with which element `index` of the loop's tuple begins."""
    start = _source(computation, start)
    if start.opcode != "tuple":
        return None
    value = _source(computation, computation.operands(start)[index])
    is_number = value.opcode == "constant" and re.fullmatch(r"-?\d+", value.inner)
    return int(value.inner) if is_number else None


def _added(body: Computation, index: int) -> int | None:
    """The constant that the body adds to element `index`."""
    result = _source(body, body.operands(body.root)[index]) if body.root.operands else None
    if result is None or result.opcode not in ("add", "subtract"):
        return None
    left, right = (_side(body, operand) for operand in body.operands(result))
    if result.opcode == "add" and right == ("element", index):
        left, right = right, left
    if left != ("element", index):
        # A value that was added to before: a chain of additions of an unrolled loop.
        inner = _source(body, body.operands(result)[0])
        if inner.opcode != "add" or right is None or right[0] != "constant":
            return None
        before = [_side(body, operand) for operand in body.operands(inner)]
        constants = [side[1] for side in before if side and side[0] == "constant"]
        if ("element", index) not in before or not constants:
            return None
        return constants[0] + right[1]
    if right is None or right[0] != "constant":
        return None
    return right[1] if result.opcode == "add" else -right[1]


def _is_kept(body: Computation, index: int) -> bool:
    """Whether the body hands element `index` on as it came."""
    result = _source(body, body.operands(body.root)[index])
    return result.opcode == "get-tuple-element" and _index(result) == index
