"""Gradients of the keys and values of attention on Hopper, in Mosaic GPU.

    P = exp(scale * Q K^T - lse)      dS = P * (dO V^T - delta)
    dV = P^T dO                       dK = scale * dS^T Q

(flash attention 2, arXiv 2307.08691, algorithm 2; the queries' gradient and why there are two
kernels: `mosaic_gpu_dq.py`.) Everything is computed transposed, K Q^T and V dO^T, with a key a row:
P^T and dS^T are then left operands, which WGMMA takes from registers, and never go through memory.

A block of three warpgroups computes 128 keys of one head. Two have 64 each: keys and values in
shared memory, dK and dV in registers. The third has the TMA bring 64 queries at a time with their
gradients, sums and intervals, in a ring: all that see the keys, of one query head of the group
after another. dV = P^T dO runs while dS is computed. Only tiles that are seen in part pay for the
mask.

Bounds on an H100 (989 TFLOP/s dense in bfloat16, data sheet): 4 products of 2 * 128 * 64 * H a
tile, and one exp2 a score. With H = 128 that is 8.4 MFLOP a tile: 1120 cycles of the tensor cores
of one multiprocessor at 1.755 GHz, 512 of its unit for exp2 (16 a cycle), 3 * 128 and more of
float32 arithmetic beside them. 33 KiB come from the L2 cache meanwhile. Interpreted on CPUs,
compiled, and not yet run on a GPU. No register spills with heads of 64, nor of 128 with 3 or 4
query heads a key head; with one, a few do. To try on hardware: turns between the warpgroups as in
the forward pass; scores of the next tile beside dK of this one; for heads of 64, tiles of 128
queries; several blocks for one of keys where there are few, each with some heads of the group.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.kernels.attention.block_ranges import BlockRanges
from llama_jax.kernels.attention.mosaic_gpu_dq import log2_totals
from llama_jax.kernels.attention.mosaic_gpu_tile import (
    COMPUTE_REGISTERS,
    KEY_BLOCK,
    LOAD_REGISTERS,
    LOG2_E,
    MATRIX,
    ROWS,
    WARPGROUPS,
)
from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.mosaic_gpu_portability import Instructions, gpu_kernel, swizzled

# A warpgroup has `ROWS` keys.
assert KEY_BLOCK == ROWS * WARPGROUPS
QUERY_BLOCK = 64
# Two slots, and one barrier for all that a slot holds: with a third slot or barrier registers spill
# (heads of 128, ptxas 13.0).
STAGES = 2

PER_COLUMN = plgpu.Layout.WGMMA.reduce(0)


def key_value_gradients(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    gradient: jax.Array,
    lse: jax.Array,
    delta: jax.Array,
    key_start: jax.Array,
    key_end: jax.Array,
    reverse_ranges: jax.Array,
    *,
    scale: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `key` and of `value`.

    Args:
      query: bfloat16 or float16 `[B, N, T, H]`; T a multiple of `QUERY_BLOCK`, H of 64.
      key, value: `[B, K, S, H]` in the dtype of `query`; S a multiple of `KEY_BLOCK`.
      gradient: of the output, like `query`.
      lse: log-sum-exp of each row of scaled scores, float32 `[B, N, T]`.
      delta: `rowsum(gradient * output)`, less the gradient of `lse`; float32 `[B, N, T]`.
      key_start, key_end: int32 `[B, T]`, within the keys there are; empty in padding.
      reverse_ranges: int32 `[B, S / KEY_BLOCK, 4]`, the fields of `query_block_ranges`.
      scale: multiplies the scores.
      interpret: run on the CPU.

    Returns:
      `[B, K, S, H]` twice, in the dtype of `key`.
    """
    B, N, _, H = query.shape
    K, S = key.shape[1:3]
    members = N // K
    gpu = Instructions(interpret)
    to_log2 = scale * LOG2_E

    def attention_dkv(
        query, key, value, gradient, log2_total, delta, key_start, key_end, ranges,
        of_key, of_value,
        key_buffer, value_buffer, query_ring, gradient_ring, total_ring, delta_ring,
        start_ring, end_ring, rows_ready, ready, free,
    ):  # fmt: skip
        batch, kv_head = lax.axis_index("batch"), lax.axis_index("kv_head")
        # Under a causal mask the first block of keys has the most to do: it starts first.
        block = lax.axis_index("block")
        warpgroup = lax.axis_index("warpgroup")

        def visits_of_block():
            return BlockRanges(*(ranges[batch, block, i] for i in range(4)))

        @pl.when(warpgroup == WARPGROUPS)
        def load():
            plgpu.set_max_registers(LOAD_REGISTERS, action="decrease")
            visits = visits_of_block()
            num_visits = visits.count
            num_turns = members * num_visits

            def load_block(turn, _):
                slot = lax.rem(turn, STAGES)

                @pl.when(turn >= STAGES)
                def wait_for_the_slot():
                    plgpu.barrier_wait(free.at[slot])

                # The last turns only wait until nothing is read any more.
                @pl.when(turn < num_turns)
                def copy():
                    head = kv_head * members + lax.div(turn, num_visits)
                    visit = lax.rem(turn, num_visits)
                    queries = pl.ds(visits.visited(visit) * QUERY_BLOCK, QUERY_BLOCK)

                    def fill(source, ring):
                        plgpu.copy_gmem_to_smem(source, ring.at[slot], ready.at[slot])

                    fill(query.at[batch, head, queries], query_ring)
                    fill(log2_total.at[batch, head, queries], total_ring)
                    fill(key_start.at[batch, queries], start_ring)
                    fill(key_end.at[batch, queries], end_ring)
                    fill(gradient.at[batch, head, queries], gradient_ring)
                    fill(delta.at[batch, head, queries], delta_ring)

            lax.fori_loop(0, jnp.where(num_turns > 0, num_turns + STAGES, 0), load_block, None)

        @pl.when(warpgroup < WARPGROUPS)
        def compute():
            plgpu.set_max_registers(COMPUTE_REGISTERS, action="increase")
            first_row = block * KEY_BLOCK + warpgroup * ROWS
            rows = pl.ds(first_row, ROWS)
            keys, values = key_buffer.at[warpgroup], value_buffer.at[warpgroup]
            here = rows_ready.at[warpgroup]
            plgpu.copy_gmem_to_smem(key.at[batch, kv_head, rows], keys, here)
            plgpu.copy_gmem_to_smem(value.at[batch, kv_head, rows], values, here)

            def per_column(ring, slot):
                x = gpu.load(ring.at[slot], layout=PER_COLUMN)
                return lax.broadcast_in_dim(x, (ROWS, QUERY_BLOCK), [1])

            def weights_of(scores, slot, masked):
                powers = scores * to_log2 - per_column(total_ring, slot)
                if masked:
                    row = gpu.iota(scores.shape, 0, layout=MATRIX) + first_row
                    seen = row >= per_column(start_ring, slot)
                    seen = seen & (row < per_column(end_ring, slot))
                    powers = jnp.where(seen, powers, MASKED)
                return jnp.exp2(powers)

            def add_tile(visit, totals, *, first_turn, masked):
                of_keys, of_values = totals
                slot = lax.rem(first_turn + visit, STAGES)
                queries, gradients = query_ring.at[slot], gradient_ring.at[slot]
                plgpu.barrier_wait(ready.at[slot])
                scores = gpu.product(keys, queries, transpose_right=True)
                weights = weights_of(scores, slot, masked)

                def of_scores(of_weights, weights):
                    return weights * (of_weights - per_column(delta_ring, slot))

                of_values, of_scores = gpu.add_product_during(
                    of_values,
                    weights.astype(query.dtype),
                    gradients,
                    first=(values, gradients),
                    between=lambda: None,
                    issued=lambda: None,
                    then=of_scores,
                    state=weights,
                )
                of_keys = gpu.add_product(of_keys, of_scores.astype(query.dtype), queries)
                plgpu.barrier_arrive(free.at[slot])
                return of_keys, of_values

            def add_tiles(totals, *, member, masked):
                # Read again each time, not kept: all registers are taken.
                visits = visits_of_block()
                tile = functools.partial(add_tile, first_turn=member * visits.count, masked=masked)
                begin = 0 if masked else visits.partial_count
                end = visits.partial_count if masked else visits.count
                return lax.fori_loop(begin, end, tile, totals)

            def add_head(member, totals):
                totals = add_tiles(totals, member=member, masked=True)
                return add_tiles(totals, member=member, masked=False)

            plgpu.barrier_wait(here)
            zeros = gpu.full((ROWS, H), 0.0, layout=MATRIX)
            of_keys, of_values = lax.fori_loop(0, members, add_head, (zeros, zeros))
            # This warpgroup alone has read its keys and values, and no product is running any more.
            keys[...] = (of_keys * scale).astype(key.dtype)
            values[...] = of_values.astype(value.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(keys, of_key.at[batch, kv_head, rows])
            plgpu.copy_smem_to_gmem(values, of_value.at[batch, kv_head, rows])
            plgpu.wait_smem_to_gmem(0)

    buffer = swizzled(WARPGROUPS, ROWS, H, dtype=key.dtype)
    ring = swizzled(STAGES, QUERY_BLOCK, H, dtype=query.dtype)
    numbers = plgpu.SMEM((STAGES, QUERY_BLOCK), jnp.float32)
    bounds = plgpu.SMEM((STAGES, QUERY_BLOCK), jnp.int32)
    return gpu_kernel(
        attention_dkv,
        interpret=interpret,
        approx_math=True,
        out_type=(
            jax.ShapeDtypeStruct(key.shape, key.dtype),
            jax.ShapeDtypeStruct(value.shape, value.dtype),
        ),
        scratch_types=[
            buffer,
            buffer,
            ring,
            ring,
            numbers,
            numbers,
            bounds,
            bounds,
            plgpu.Barrier(num_arrivals=2, num_barriers=WARPGROUPS),
            plgpu.Barrier(num_arrivals=6, num_barriers=STAGES),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES),
        ],
        grid=(B, K, S // KEY_BLOCK),
        grid_names=("batch", "kv_head", "block"),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
    )(
        query, key, value, gradient, log2_totals(lse, key_start, key_end), delta,
        key_start, key_end, reverse_ranges,
    )  # fmt: skip
