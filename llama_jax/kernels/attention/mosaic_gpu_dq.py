"""Gradient of the queries of attention on Hopper, in Mosaic GPU.

With P = exp(scale * Q K^T - lse), computed again from what the forward pass kept of each row,

    dS = P * (dO V^T - delta)      dQ = scale * dS K

(flash attention 2, arXiv 2307.08691, algorithm 2; delta as in `chunked_backward.py`). Keys and
values have a kernel of their own (`mosaic_gpu_dkv.py`), so that each result is summed by one
warpgroup in one order: the same bits every time, and no atomic additions. That costs Q K^T and
dO V^T twice, 7 products in all for 5.

A block of three warpgroups computes 128 rows of one head. Two compute 64 rows each; their queries
and gradients stay in shared memory, dQ in registers. The third has the TMA bring the keys and
values of the tiles visited, in a ring. dS goes from registers straight into the last product. Only
tiles that are seen in part pay for the mask.

P is meant to be computed while dO V^T runs, and mostly is not: ptxas 13.0 moves 62 of its 64
exponentials to after the wait for that product in tiles with a mask, 48 of 64 in whole ones. To be
tried first: a store between the two, which it does not move and which kept them in place in
`mosaic_gpu_forward.py`.

Bounds on an H100 (989 TFLOP/s dense in bfloat16, data sheet): 3 products of 2 * 128 * 128 * H a
tile, and one exp2 a score. With H = 128 that is 12.6 MFLOP a tile: 1680 cycles of the tensor cores
of one multiprocessor at 1.755 GHz, 1024 of its unit for exp2 (16 a cycle), 3 * 256 and more of
float32 arithmetic beside them. 64 KiB come from the L2 cache meanwhile. Compiled without spills,
interpreted on CPUs, and not yet run on a GPU. To try there: turns between the warpgroups as in
the forward pass; dQ of one tile beside the scores of the next; tiles of 64 keys in a longer ring.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.kernels.attention.block_ranges import BlockRanges
from llama_jax.kernels.attention.mosaic_gpu_tile import (
    COMPUTE_REGISTERS,
    KEY_BLOCK,
    LOAD_REGISTERS,
    LOG2_E,
    MATRIX,
    PER_ROW,
    QUERY_BLOCK,
    ROWS,
    STAGES,
    WARPGROUPS,
    load_visited,
)
from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.mosaic_gpu_portability import Instructions, gpu_kernel, swizzled


def log2_totals(lse: jax.Array, key_start: jax.Array, key_end: jax.Array) -> jax.Array:
    """`lse` to the base of 2, float32 `[B, N, T]`, which is taken from scores to get weights.

    In rows that see nothing it is more than any score: their weights are 0 in tiles without a mask
    too, which are visited for the sake of other rows.
    """
    return jnp.where((key_end > key_start)[:, None], lse, -MASKED) * LOG2_E


def query_gradient(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    gradient: jax.Array,
    lse: jax.Array,
    delta: jax.Array,
    key_start: jax.Array,
    key_end: jax.Array,
    ranges: jax.Array,
    *,
    scale: float,
    interpret: bool,
) -> jax.Array:
    """The gradient of `query`.

    Args:
      query: bfloat16 or float16 `[B, N, T, H]`; T a multiple of `QUERY_BLOCK`, H of 64.
      key, value: `[B, K, S, H]` in the dtype of `query`; S a multiple of `KEY_BLOCK`.
      gradient: of the output, like `query`.
      lse: log-sum-exp of each row of scaled scores, float32 `[B, N, T]`.
      delta: `rowsum(gradient * output)`, less the gradient of `lse`; float32 `[B, N, T]`.
      key_start, key_end: int32 `[B, T]`, within the keys there are; empty in padding.
      ranges: int32 `[B, T / QUERY_BLOCK, 4]`, the fields of `key_block_ranges`.
      scale: multiplies the scores.
      interpret: run on the CPU.

    Returns:
      `[B, N, T, H]` in the dtype of `query`.
    """
    B, N, T, H = query.shape
    K = key.shape[1]
    num_blocks, members = T // QUERY_BLOCK, N // K
    gpu = Instructions(interpret)
    to_log2 = scale * LOG2_E

    def attention_dq(
        query, key, value, gradient, log2_total, delta, key_start, key_end, ranges, result,
        query_buffer, gradient_buffer, key_ring, value_ring,
        rows_ready, key_ready, value_ready, key_free, value_free,
    ):  # fmt: skip
        batch, kv_head = lax.axis_index("batch"), lax.axis_index("kv_head")
        head = kv_head * members + lax.axis_index("member")
        # Under a causal mask the last block of queries has the most to do: it starts first.
        block = num_blocks - 1 - lax.axis_index("block")
        visits = BlockRanges(*(ranges[batch, block, i] for i in range(4)))
        num_visits = visits.count
        warpgroup = lax.axis_index("warpgroup")

        @pl.when(warpgroup == WARPGROUPS)
        def load():
            plgpu.set_max_registers(LOAD_REGISTERS, action="decrease")
            load_visited(
                visits,
                num_visits,
                (batch, kv_head),
                (key, key_ring, key_free, key_ready),
                (value, value_ring, value_free, value_ready),
            )

        @pl.when(warpgroup < WARPGROUPS)
        def compute():
            plgpu.set_max_registers(COMPUTE_REGISTERS, action="increase")
            rows = pl.ds(block * QUERY_BLOCK + warpgroup * ROWS, ROWS)
            queries, gradients = query_buffer.at[warpgroup], gradient_buffer.at[warpgroup]
            here = rows_ready.at[warpgroup]
            plgpu.copy_gmem_to_smem(query.at[batch, head, rows], queries, here)
            plgpu.copy_gmem_to_smem(gradient.at[batch, head, rows], gradients, here)

            def of_rows(source):
                return gpu.load(source, layout=PER_ROW, shared=False)

            largest, row_sum = (
                of_rows(log2_total.at[batch, head, rows]),
                of_rows(delta.at[batch, head, rows]),
            )
            start, end = of_rows(key_start.at[batch, rows]), of_rows(key_end.at[batch, rows])

            def per_row(x):
                return lax.broadcast_in_dim(x, (ROWS, KEY_BLOCK), [0])

            def weights_of(scores, visit, masked):
                powers = scores * to_log2 - per_row(largest)
                if masked:
                    column = gpu.iota(scores.shape, 1, layout=MATRIX)
                    column = column + visits.visited(visit) * KEY_BLOCK
                    seen = (column >= per_row(start)) & (column < per_row(end))
                    powers = jnp.where(seen, powers, MASKED)
                return jnp.exp2(powers)

            def add_tile(visit, total, *, masked):
                slot = lax.rem(visit, STAGES)
                plgpu.barrier_wait(key_ready.at[slot])
                zeros = gpu.full((ROWS, KEY_BLOCK), 0.0, layout=MATRIX)
                of_weights, weights = gpu.add_product_during(
                    zeros,
                    gradients,
                    value_ring.at[slot],
                    transpose_right=True,
                    first=(queries, key_ring.at[slot]),
                    between=lambda: plgpu.barrier_wait(value_ready.at[slot]),
                    issued=lambda: None,
                    then=lambda scores, _: weights_of(scores, visit, masked),
                    state=zeros,
                )
                plgpu.barrier_arrive(value_free.at[slot])
                of_scores = weights * (of_weights - per_row(row_sum))
                total = gpu.add_product(total, of_scores.astype(query.dtype), key_ring.at[slot])
                plgpu.barrier_arrive(key_free.at[slot])
                return total

            plgpu.barrier_wait(here)
            total = gpu.full((ROWS, H), 0.0, layout=MATRIX)
            partial_count = visits.partial_count
            total = lax.fori_loop(0, partial_count, functools.partial(add_tile, masked=True), total)
            total = lax.fori_loop(
                partial_count, num_visits, functools.partial(add_tile, masked=False), total
            )
            # This warpgroup alone has read its queries, and no product is running any more.
            queries[...] = (total * scale).astype(query.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(queries, result.at[batch, head, rows])
            plgpu.wait_smem_to_gmem(0)

    buffer = swizzled(WARPGROUPS, ROWS, H, dtype=query.dtype)
    ring = swizzled(STAGES, KEY_BLOCK, H, dtype=key.dtype)
    return gpu_kernel(
        attention_dq,
        interpret=interpret,
        approx_math=True,
        out_type=jax.ShapeDtypeStruct(query.shape, query.dtype),
        scratch_types=[
            buffer,
            buffer,
            ring,
            ring,
            plgpu.Barrier(num_arrivals=2, num_barriers=WARPGROUPS),
            plgpu.Barrier(num_barriers=STAGES),
            plgpu.Barrier(num_barriers=STAGES),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES),
        ],
        grid=(B, K, num_blocks, members),
        grid_names=("batch", "kv_head", "block", "member"),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
    )(
        query, key, value, gradient, log2_totals(lse, key_start, key_end), delta,
        key_start, key_end, ranges,
    )  # fmt: skip
