"""Floating-point operations of the matrix products in a program; a multiply-add is two.

XLA for TPU writes every product as a convolution, a batch of products as one with a window that
touches one place of the batch each time: counted are the places that are touched, as XLA's own cost
analysis does. GPU programs have `dot`, and calls of cuBLAS.
"""

import math
import re

import numpy as np

from sharding.pod_plan.hlo import Computation, Instruction, Program

_CUBLAS = ("__cublas$gemm", "__cublas$lt$matmul", "__cublas$lt$matmul$f8")


def product_flops(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Of `instruction` of `computation`, with what is fused into it."""
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attributes, r"lhs_contracting_dims=\{([\d,]*)\}")
        return _dot(computation, instruction, contracted)
    if instruction.opcode == "custom-call" and instruction.target.startswith(_CUBLAS):
        contracted = _numbers(instruction.attributes, r'"lhs_contracting_dimensions":\[([\d",]*)\]')
        return _dot(computation, instruction, contracted)
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.calls]
        return sum(product_flops(program, inner, one) for one in inner.instructions.values())
    return 0


def _numbers(text: str, pattern: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(number) for number in re.findall(r"\d+", found.group(1))] if found else []


def _dot(computation: Computation, instruction: Instruction, contracted: list[int]) -> int:
    left = computation.operands(instruction)[0].shapes[0]
    return 2 * instruction.shapes[0].size * math.prod(left.dims[dim] for dim in contracted)


def _convolution(computation: Computation, instruction: Instruction) -> int:
    left, right = (one.shapes[0] for one in computation.operands(instruction))
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes).groups()
    out = instruction.shapes[0]
    sizes = [
        dict(zip(names, shape.dims, strict=True))
        for names, shape in zip(labels, (left, right, out), strict=True)
    ]
    groups = _numbers(instruction.attributes, r"batch_group_count=(\d+)") or [1]
    places = math.prod(
        _places_touched(sizes[0][axis], sizes[1][axis], sizes[2][axis], window)
        for axis, window in _window(instruction.attributes).items()
        if axis in sizes[0]
    )
    return 2 * places * sizes[1]["i"] * sizes[2]["f"] * sizes[0]["b"] // groups[0]


def _window(attributes: str) -> dict[str, tuple[int, int, int, int]]:
    """Spatial axis -> stride, low padding, dilation of the input, dilation of the window."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    if not found:
        return {}
    fields = dict(part.split("=") for part in found.group(1).split())
    num_axes = len(fields["size"].split("x"))

    def values(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * num_axes

    return {
        str(axis): (int(stride), int(pad.split("_")[0]), int(of_input), int(of_window))
        for axis, (stride, pad, of_input, of_window) in enumerate(
            zip(
                values("stride", "1"),
                values("pad", "0_0"),
                values("lhs_dilate", "1"),
                values("rhs_dilate", "1"),
                strict=True,
            )
        )
    }


def _places_touched(size: int, window: int, outputs: int, how: tuple[int, int, int, int]) -> int:
    """Pairs of an output and a place of the window at which there is an input."""
    stride, pad, of_input, of_window = how
    places = np.arange(outputs)[:, None] * stride + np.arange(window) * of_window - pad
    inside = (places >= 0) & (places <= (size - 1) * of_input) & (places % of_input == 0)
    return int(np.count_nonzero(inside))
