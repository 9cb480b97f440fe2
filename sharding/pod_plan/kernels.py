"""Work of the Pallas kernels of a program, of which its compiler has no estimate.

Of each known kernel: how many products of the size of queries times keys it makes, over the blocks
that a causal mask leaves. A fused backward pass makes five (scores, their gradient, and the
gradients of query, key and value), a split one three for the query and four for key and value.
"""

import math
import re
from dataclasses import dataclass

from sharding.pod_plan.hlo import Computation, Instruction

# Part of a kernel's name -> products of queries and keys.
_PRODUCTS = {
    "splash_mha_fwd": 2,
    "splash_mha_dq": 3,
    "splash_mha_dkv": 4,
    "flash_tpu_forward": 2,
    "flash_tpu_backward": 5,
    "attention_forward": 2,
    "attention_dq": 3,
    "attention_dkv": 4,
}
_FUSED_BACKWARD = 5
_PALLAS = ("tpu_custom_call", "mosaic_gpu_v2")
# XLA's own, which compute nothing.
_NOTHING = (
    "AllocateBuffer", "AssumeGatherIndicesInBound", "AsyncCollectiveStart", "AsyncCollectiveDone",
    "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "MoveToHost", "MoveToDevice",
    "annotate_device_placement", "ConcatBitcast", "PinToDevice", "PinToDeviceSram", "X64Combine",
    "X64SplitLow", "X64SplitHigh", "ResizeMemory", "LayoutConstraint",
)  # fmt: skip
# Where a kernel does not say its blocks: those of our own.
_BLOCK = 512


@dataclass(frozen=True)
class KernelWork:
    """Attributes:
    name: for people.
    flops: of one call, masked blocks left out; None of a kernel that is not known.
    bytes: its arguments and results, each once.
    """

    name: str
    flops: float | None
    bytes: int


def kernel_work(computation: Computation, instruction: Instruction) -> KernelWork | None:
    """Of a custom call; None if it is one that computes nothing."""
    target = instruction.target
    if target in _NOTHING:
        return None
    size = instruction.bytes + sum(one.bytes for one in computation.operands(instruction))
    if target not in _PALLAS:
        return KernelWork(target, None, size)
    name = _name(instruction)
    products = next((number for part, number in _PRODUCTS.items() if part in name), None)
    if products is None:
        return KernelWork(name, None, size)
    query, key = _query_and_key(computation, instruction)
    # One that gives key's and value's gradients and a third array has made the query's too.
    if (
        "splash_mha_dkv" in name
        and sum(one.dims[-2:] == query[-2:] for one in instruction.shapes) > 2
    ):
        products = _FUSED_BACKWARD
    *heads, num_queries, head_dim = query
    visible = _visible(instruction, num_queries, num_keys=key[-2])
    return KernelWork(name, 2.0 * products * math.prod(heads) * head_dim * visible, size)


def _name(instruction: Instruction) -> str:
    """Of the kernel: the instruction's on a TPU, the scope that it was called in on a GPU."""
    if instruction.target == "tpu_custom_call":
        return re.sub(r"[.\d]+$", "", instruction.name)
    *_, scope, _ = ("", *instruction.op_name.split("/"))
    return scope


def _query_and_key(computation: Computation, instruction: Instruction):
    """Their dimensions, which end in tokens and numbers of a head."""
    dims = [
        one.shapes[0].dims
        for one in computation.operands(instruction)
        if len(one.shapes[0].dims) >= 3 and one.shapes[0].dtype in ("bf16", "f16", "f32")
    ]
    return dims[0], dims[1]


def _visible(instruction: Instruction, num_queries: int, num_keys: int) -> int:
    """Pairs of a query and a key in the blocks that a causal mask leaves."""
    part = next((part for part in ("_dkv", "_dq") if part in instruction.name), "")
    of_queries = int(_stated(instruction, f"block_q{part}") or _BLOCK)
    of_keys = int(_stated(instruction, f"block_kv{part}") or _BLOCK)
    ends = range(of_queries, num_queries + of_queries, of_queries)
    return sum(of_queries * of_keys * -(-min(end, num_keys) // of_keys) for end in ends)


def _stated(instruction: Instruction, field: str) -> str | None:
    """A number of splash's own description of its blocks."""
    found = re.search(rf'\\"{field}\\": (\w+)', instruction.attributes)
    return found and found.group(1)
