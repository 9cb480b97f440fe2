"""Products of a few tokens with a quantised weight on Hopper GPUs, in Pallas for Mosaic GPU.

A step of decoding reads every weight once and multiplies it with 1 to 64 tokens, so that reading is
what takes time: the weight goes through the chip as it is stored, in 8 or 4 bits, and becomes
bfloat16 in registers, where all three formats are exact. Scales meet the float32 sums: of an output
channel after all, in the program around the kernel; of int4's groups after each group.

How. A block of 4 warpgroups and 1 (or 2 and 1) owns up to 256 rows of the weight (128 in int4 from
33 tokens on, which the registers of a thread would not hold otherwise). The extra one streams
tiles of 128 bytes a row and the tokens that belong to them into a ring in shared memory (TMA,
~200 KiB in flight per SM; a queue of 40 KiB would already cover 3.35 TB/s at 1.5 us). Each of the
others takes 64 rows of a tile into registers, converts them, and multiplies them with the tokens by
WGMMA: the weight is the left operand because only the left one may come from registers, and so it
is the tokens that are padded, to 8. Where rows are too few for all SMs the inputs are split too;
float32 sums of the splits are added in the program around the kernel, in order: the result does not
depend on timing. XLA fuses that addition, the scales and the cast with what comes next.

int4: XLA keeps `jnp.int4` arrays packed on GPUs, two to a byte, and Mosaic GPU takes them as they
are, with TMA, swizzle and conversion to bfloat16 (`prmt`, `lop3`, `sub`): no packed view is needed.

Roofline: bytes / bandwidth, `in * out * bits / 8` over 3.35 TB/s on an H100 SXM (4.8 on an H200).
For gate and up of the 8B model, 28672 x 4096: 35 us at 8 bits, 17.5 (and 1.1 for scales) at 4. By
count of the PTX a warpgroup issues ~2.5 instructions per 8-bit weight and as many per 4-bit one; an
SM has to convert 15 and 30 weights a clock to keep up and can issue 128 lanes: 30 % and 60 %.

Sums are written in float32, padded to 8 tokens: with 4096 x 14336, 8 splits and one token 1 MB, out
and back, beside 59 MB (8 bits) or 29 MB of weight; with 64 tokens 8 MB.

No GPU has run this: interpreted on CPUs, and compiled for sm_90a without spills. To try there:
`_RING_BYTES` halved with two blocks on an SM; without the subtraction in int4's conversion (136
times the sum of the tokens, once a group, undoes the bias); clusters of two blocks that share the
tokens (multicast) from 32 tokens on.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.accelerators import is_hopper
from llama_jax.kernels.matmul.few_tokens import unsupported_operands
from llama_jax.kernels.mosaic_gpu_portability import (
    SWIZZLE_BYTES,
    Instructions,
    gpu_kernel,
    swizzled,
)
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

_NUM_SMS = 132  # H100 SXM and H200
_RING_BYTES = 192 * 1024  # of the 227 KiB that a block may have
_BITS = {WeightFormat.FP8: 8, WeightFormat.INT8: 8, WeightFormat.INT4: 4}
# Inputs that are converted and multiplied at once: a group of int4.
_CHUNK = INT4_GROUP


class _Plan(NamedTuple):
    """Sizes of the kernel.

    Attributes:
      tokens: of a tile, padded to 8.
      warpgroups: that compute.
      bands: of 64 rows, that each of them takes.
      block: inputs of a tile.
      stages: tiles in the ring.
      splits: of the inputs.
    """

    tokens: int
    warpgroups: int
    bands: int
    block: int
    stages: int
    splits: int

    @property
    def rows(self) -> int:
        return 64 * self.bands * self.warpgroups


def refusal(
    x: jax.ShapeDtypeStruct, weight: QuantizedTensor, *, platform: str, device_kind: str
) -> str | None:
    """Why `weight_only` cannot take this, in one line; None if it can. Looks at shapes only."""
    if platform != "gpu" or not is_hopper(device_kind):
        return f"it is written for Hopper GPUs, not {device_kind}"
    return unsupported_case(x, weight)


def unsupported_case(x: jax.ShapeDtypeStruct, weight: QuantizedTensor) -> str | None:
    """What of the shapes and dtypes the kernel cannot take; None if nothing."""
    if reason := unsupported_operands(x, weight):
        return reason
    num_outputs, num_inputs = weight.shape
    block = SWIZZLE_BYTES * 8 // _BITS[weight.format]
    if num_outputs % 64 or num_inputs % block:
        return (
            f"it takes multiples of 64 outputs and {block} inputs in {weight.format}, not "
            f"{num_outputs} and {num_inputs}"
        )
    return None


def weight_only(x: jax.Array, weight: QuantizedTensor, *, interpret: bool = False) -> jax.Array:
    """`x` times the transposed weight; activations are not quantised, whatever the format.

    Args:
      x: bfloat16 `[M, in]`, M from 1 to 64.
      weight: `[out, in]`; multiples of 64 outputs and of 128 inputs (256 in int4).
      interpret: run on the CPU.

    Returns:
      bfloat16 `[M, out]`, summed in float32. The same bits every time.

    Raises:
      ValueError: what `refusal` names.
    """
    if reason := unsupported_case(x, weight):
        raise ValueError(f"weight_only: {reason}")
    plan = _plan(x.shape[0], weight)
    padded = jnp.pad(x, ((0, plan.tokens - x.shape[0]), (0, 0)))
    in_groups = weight.format is WeightFormat.INT4
    operands = (weight.values, padded, *((weight.scales,) if in_groups else ()))
    num_outputs = weight.shape[0]
    body = functools.partial(_kernel, plan=plan, format=weight.format, interpret=interpret)
    body.__name__ = f"weight_only_{weight.format}"
    sums = gpu_kernel(
        body,
        interpret=interpret,
        out_type=jax.ShapeDtypeStruct((plan.splits, num_outputs, plan.tokens), jnp.float32),
        scratch_types=dict(
            weight_ring=swizzled(plan.stages, plan.rows, plan.block, dtype=weight.values.dtype),
            token_ring=swizzled(plan.stages, plan.tokens, plan.block, dtype=x.dtype),
            filled=plgpu.Barrier(num_arrivals=2, num_barriers=plan.stages),
            emptied=plgpu.Barrier(num_arrivals=plan.warpgroups, num_barriers=plan.stages),
        ),
        grid=(num_outputs // plan.rows, plan.splits),
        grid_names=("tile", "split"),
        num_threads=plan.warpgroups + 1,
        thread_name="warpgroup",
    )(*operands)
    total = jnp.sum(sums, axis=0)
    if not in_groups:
        total = total * weight.scales[:, None]
    return total.T[: x.shape[0]].astype(x.dtype)


def _plan(num_tokens: int, weight: QuantizedTensor) -> _Plan:
    num_outputs, num_inputs = weight.shape
    tokens = -(-num_tokens // 8) * 8
    # Scaled sums of two bands of int4 with more than 32 tokens would spill.
    is_wide = weight.format is WeightFormat.INT4 and tokens > 32
    bands = next(n for n in ((2, 1) if is_wide else (4, 2, 1)) if num_outputs % (64 * n) == 0)
    # Many warpgroups hide each other's waits; many tokens need the registers of two.
    warpgroups = min(bands, 4 if tokens <= 16 else 2)
    block = SWIZZLE_BYTES * 8 // _BITS[weight.format]
    tile_bytes = 64 * bands * SWIZZLE_BYTES + tokens * block * 2
    num_blocks = num_inputs // block
    splits = min(max(1, _NUM_SMS // (num_outputs // (64 * bands))), num_blocks)
    stages = min(_RING_BYTES // tile_bytes, -(-num_blocks // splits))
    return _Plan(tokens, warpgroups, bands // warpgroups, block, stages, splits)


def _kernel(
    weight, x, *rest, weight_ring, token_ring, filled, emptied, plan: _Plan, format, interpret
):
    """One warpgroup of one block: rows `tile`, inputs `split`.

    Letters: R rows of a block, C inputs of a tile. `weight` [out, in], `x` [tokens, in], scales
    [out, groups] if the format has groups, and the sums [splits, out, tokens].
    """
    *scales, sums = rest
    instructions = Instructions(interpret)
    warpgroup = lax.axis_index("warpgroup")
    first_row = lax.axis_index("tile") * plan.rows
    split = lax.axis_index("split")
    num_blocks = weight.shape[1] // plan.block
    first = split * num_blocks // plan.splits
    count = (split + 1) * num_blocks // plan.splits - first

    @pl.when(warpgroup == plan.warpgroups)
    def _stream():
        plgpu.set_max_registers(40, action="decrease")

        @pl.loop(0, count)
        def _(index):
            slot = lax.rem(index, plan.stages)

            @pl.when(index >= plan.stages)
            def _():
                plgpu.barrier_wait(emptied.at[slot])

            inputs = pl.ds((first + index) * plan.block, plan.block)
            rows = pl.ds(first_row, plan.rows)
            plgpu.copy_gmem_to_smem(weight.at[rows, inputs], weight_ring.at[slot], filled.at[slot])
            plgpu.copy_gmem_to_smem(x.at[:, inputs], token_ring.at[slot], filled.at[slot])

        # A block does not end before all that was loaded has been used.
        @pl.loop(jnp.maximum(count, plan.stages), count + plan.stages)
        def _(index):
            plgpu.barrier_wait(emptied.at[lax.rem(index, plan.stages)])

    @pl.when(warpgroup < plan.warpgroups)
    def _multiply():
        # 64 Ki in all, with what the other warpgroup keeps.
        registers = {1: 232, 2: 232, 4: 104}[plan.warpgroups]
        plgpu.set_max_registers(registers, action="increase")
        bands = [
            (warpgroup * plan.bands + band) * 64  # rows of this block
            for band in range(plan.bands)
        ]

        def add_tile(index, totals):
            slot = lax.rem(index, plan.stages)
            plgpu.barrier_wait(filled.at[slot])
            totals = [
                _add_tile(
                    total,
                    weight_ring.at[slot, pl.ds(row, 64)],
                    token_ring.at[slot],
                    [ref.at[pl.ds(first_row + row, 64)] for ref in scales],
                    (first + index) * (plan.block // _CHUNK),
                    format=format,
                    instructions=instructions,
                )
                for row, total in zip(bands, totals, strict=True)
            ]
            plgpu.barrier_arrive(emptied.at[slot])
            return totals

        zeros = instructions.full((64, plan.tokens), 0.0, layout=plgpu.Layout.WGMMA)
        totals = lax.fori_loop(0, count, add_tile, [zeros] * plan.bands)
        for row, total in zip(bands, totals, strict=True):
            sums[split, pl.ds(first_row + row, 64), :] = total


def _add_tile(total, weight, tokens, scales, first_group, *, format, instructions: Instructions):
    """`total` [64, tokens] plus `weight` [64, C] times `tokens` [tokens, C], both in shared memory.

    Args:
      scales: int4's `[64, groups]`, in global memory; empty for the others.
      first_group: of the tile.
    """
    layouts = plgpu.Layout
    four_bits = format is WeightFormat.INT4
    # As many neighbouring values in a thread as 32 bits hold; the rest is what WGMMA wants.
    layout = layouts.WGMMA_UPCAST_4X if four_bits else layouts.WGMMA_UPCAST_2X
    tile = instructions.load(weight, layout=layout)
    for chunk in range(tile.shape[1] // _CHUNK):
        inputs = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        values = tile[:, inputs]
        if four_bits:
            values = instructions.layout_cast(values, layouts.WGMMA_UPCAST_2X)
        values = instructions.layout_cast(values, layouts.WGMMA)
        if format is WeightFormat.FP8:
            values = values.astype(jnp.float32)  # Hopper has no direct way
        product = instructions.product(
            values.astype(jnp.bfloat16), tokens.at[:, inputs], transpose_right=True
        )
        for ref in scales:
            group_scales = instructions.load(
                ref.at[:, first_group + chunk], layout=layouts.WGMMA.reduce(1), shared=False
            )
            product = product * lax.broadcast_in_dim(group_scales, product.shape, (0,))
        total = total + product
    return total
