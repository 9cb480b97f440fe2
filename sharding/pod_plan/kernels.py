"""Work of the kernels that a compiler calls and cannot estimate: Pallas on TPU, cuDNN on GPU.

Of each known kernel: how many products of the size of queries times keys it makes, over the blocks
that a causal mask leaves. A fused backward pass makes five (scores, their gradient, and the
gradients of query, key and value), a split one three for the query and four for key and value.
"""

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
    "fmhaSoftmax$": 2,
    "__cudnn$fmhaSoftmaxBackward": 5,
}
_CUDNN = "__cudnn$fmha"
# XLA's own, which compute nothing.
_NOTHING = (
    "AllocateBuffer", "AssumeGatherIndicesInBound", "AsyncCollectiveStart", "AsyncCollectiveDone",
    "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "MoveToHost", "MoveToDevice",
    "annotate_device_placement", "ConcatBitcast", "PinToDevice", "PinToDeviceSram", "X64Combine",
    "X64SplitLow", "X64SplitHigh", "ResizeMemory", "LayoutConstraint",
)  # fmt: skip


@dataclass(frozen=True)
class KernelWork:
    """Attributes:
    name: for people.
    flops: of one call, masked blocks left out; None of a kernel that is not known.
    """

    name: str
    flops: float | None


def kernel_work(computation: Computation, instruction: Instruction) -> KernelWork | None:
    """Of a custom call; None if it is one that computes nothing."""
    target = instruction.target
    if target in _NOTHING:
        return None
    name = re.sub(r"[.\d]+$", "", instruction.name)
    if target.startswith(_CUDNN):
        backward = "Backward" in target
        name, products = "cudnn attention" + " backward" * backward, 5 if backward else 2
    else:
        products = next(
            (number for part, number in _PRODUCTS.items() if part in instruction.name), None
        )
        if products is None:
            return KernelWork(name if target == "tpu_custom_call" else target, None)
    if "splash_mha_dkv" in instruction.name and _block(instruction, "use_fused_bwd_kernel") is True:
        products = 5
    query, key = _query_and_key(computation, instruction)
    *batch, num_queries, head_dim = query
    num_keys = key[-2]
    share = _visible(instruction, num_queries, num_keys)
    total = 2.0 * products * num_queries * num_keys * head_dim * share
    for size in batch:
        total *= size
    return KernelWork(name, total)


def _query_and_key(computation: Computation, instruction: Instruction):
    """Their dimensions, heads before tokens."""
    arrays = [
        operand.shapes[0].dims
        for operand in computation.operands(instruction)
        if len(operand.shapes[0].dims) >= 3 and operand.shapes[0].dtype in ("bf16", "f32", "f16")
    ]
    query, key = arrays[0], arrays[1]
    if instruction.target.startswith(_CUDNN):  # its arrays are [B, T, N, H], said in its config
        layout = re.search(r'"fmha_.*?"', instruction.attributes)
        query, key = (
            ((one[0], one[2], one[1], one[3]) for one in (query, key))
            if layout
            else (
                query,
                key,
            )
        )
    return query, key


def _visible(instruction: Instruction, num_queries: int, num_keys: int) -> float:
    """The share of all blocks that a causal mask leaves."""
    of_queries = _block(instruction, "block_q") or 512
    of_keys = _block(instruction, "block_kv") or 512
    rows = range(0, num_queries, of_queries)
    columns = [-(-min(first + of_queries, num_keys) // of_keys) for first in rows]
    return sum(columns) * of_queries * of_keys / (num_queries * num_keys)


def _block(instruction: Instruction, field: str):
    """A number of splash's own description of its blocks."""
    found = re.search(rf'\\"{field}\\": (\w+)', instruction.attributes)
    if not found:
        return None
    value = found.group(1)
    return int(value) if value.isdigit() else {"true": True, "false": False}.get(value)
