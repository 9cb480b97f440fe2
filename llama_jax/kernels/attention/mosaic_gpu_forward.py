"""Forward pass of attention on Hopper: one Mosaic GPU kernel. Used by `mosaic_gpu.py`.

A block of threads computes 128 rows of one query head: two warpgroups of 64 rows each, and a third
that keeps the TMA fetching blocks of 128 keys and values into a ring of two slots. The online
softmax of flash attention (arXiv 2205.14135), and of flash attention 3 (arXiv 2407.08608) both ways
of keeping the tensor cores busy during it: a warpgroup issues the scores of the next block together
with the weighted values of this one, and its softmax runs beside the latter; and the warpgroups
take turns in issuing, so that the softmax of one meets the products of the other. Of the machine
code (ptxas 13.0 and 13.5) all exponentials stand between the waits for the two products. Blocks of
keys that no row sees are neither fetched nor computed; whole blocks skip the mask's arithmetic.

What limits it, per 128 queries, 128 keys and H = 128 on an H100 SXM (4096 bfloat16 operations and
16 exponentials a cycle and multiprocessor): 2048 cycles of tensor cores, 1024 of exponentials that
have to hide behind them, and 64 KiB of keys and values, 32 bytes a cycle, from the level 2 cache,
where query heads that share a key head find them: they are neighbours in the grid.

No GPU has run it: it is interpreted on the CPU in tests, and compiled. To be tried on hardware:
without turns (delete the barriers `turn`); without the overlap inside a warpgroup (`product`, then
`add_product`); 176 keys a block where nothing is masked; a cluster of the heads of a group, to
which the TMA sends each block of keys once; persistent blocks of threads, which hide the store of
one tile behind the next.
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

# Less than any score and more than a masked one times any sensible scale: in a row that has seen
# nothing yet, exp2(masked - smallest) is 0 and not 1.
SMALLEST = -1e20


def forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_start: jax.Array,
    key_end: jax.Array,
    ranges: jax.Array,
    *,
    scale: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """Output and log-sum-exp, with the contract of `reference.attention`.

    Args:
      query: `[B, N, T, H]`, bfloat16 or float16; T in whole blocks of `QUERY_BLOCK`, H 64 or 128.
      key, value: `[B, K, S, H]`; S in whole blocks of `KEY_BLOCK`.
      key_start, key_end: int32 `[B, T]`, within the keys; the padding's are empty.
      ranges: int32 `[B, T / QUERY_BLOCK, 4]`, `BlockRanges` of blocks of keys.
      scale: positive.
      interpret: on the CPU.
    """
    B, N, T, H = query.shape
    K = key.shape[1]
    num_blocks = T // QUERY_BLOCK
    members = N // K
    to_log2 = scale * LOG2_E
    gpu = Instructions(interpret)

    def attention_forward(
        query, key, value, key_start, key_end, ranges, output, lse,
        query_buffer, key_ring, value_ring, lse_buffer,
        query_ready, key_ready, value_ready, key_free, value_free, turn,
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
            queries = query_buffer.at[warpgroup]
            plgpu.copy_gmem_to_smem(query.at[batch, head, rows], queries, query_ready.at[warpgroup])
            start = gpu.load(key_start.at[batch, rows], layout=PER_ROW, shared=False)
            end = gpu.load(key_end.at[batch, rows], layout=PER_ROW, shared=False)

            def per_row(x, columns):
                return lax.broadcast_in_dim(x, (ROWS, columns), [0])

            def attend(scores, largest, total, visit, masked):
                """The block's weights, new maximum and sum; and by what earlier sums shrink."""
                if masked:
                    column = gpu.iota(scores.shape, 1, layout=MATRIX)
                    column = column + visits.visited(visit) * KEY_BLOCK
                    seen = column >= per_row(start, KEY_BLOCK)
                    seen = seen & (column < per_row(end, KEY_BLOCK))
                    scores = jnp.where(seen, scores, MASKED)
                new = jnp.maximum(largest, scores.max(axis=1) * to_log2)
                weights = jnp.exp2(scores * to_log2 - per_row(new, KEY_BLOCK))
                shrink = jnp.exp2(largest - new)
                return weights, new, total * shrink + weights.sum(axis=1), shrink

            def visit_all(carry):
                output_sum, largest, total = carry
                plgpu.barrier_wait(key_ready.at[0])
                scores = gpu.product(queries, key_ring.at[0], transpose_right=True)
                plgpu.barrier_arrive(key_free.at[0])
                weights, largest, total, _ = attend(scores, largest, total, jnp.int32(0), True)

                def step(visit, carry, masked):
                    """Scores of this visit, and the values of the one before."""
                    output_sum, weights, largest, total = carry
                    slot, before = lax.rem(visit, STAGES), lax.rem(visit - 1, STAGES)
                    plgpu.barrier_wait(key_ready.at[slot])
                    plgpu.barrier_wait(turn.at[warpgroup])

                    def then(scores, state):
                        plgpu.barrier_arrive(key_free.at[slot])
                        _, largest, total, _ = state
                        done = attend(scores, largest, total, visit, masked)
                        # For its order alone: ptxas would move the exponentials to after the wait
                        # for the other product, but no store.
                        lse_buffer.at[warpgroup][...] = done[2]
                        return done

                    zeros = gpu.full((ROWS, KEY_BLOCK), 0.0, layout=MATRIX)
                    output_sum, (new_weights, largest, total, shrink) = gpu.add_product_during(
                        output_sum,
                        weights,
                        value_ring.at[before],
                        first=(queries, key_ring.at[slot]),
                        between=lambda: plgpu.barrier_wait(value_ready.at[before]),
                        issued=lambda: plgpu.barrier_arrive(turn.at[1 - warpgroup]),
                        then=then,
                        state=(zeros, largest, total, largest),
                    )
                    plgpu.barrier_arrive(value_free.at[before])
                    output_sum = output_sum * per_row(shrink, H)
                    return output_sum, new_weights.astype(query.dtype), largest, total

                carry = output_sum, weights.astype(query.dtype), largest, total
                num_partial = visits.partial_count
                masked_step = functools.partial(step, masked=True)
                carry = lax.fori_loop(1, num_partial, masked_step, carry)
                whole_step = functools.partial(step, masked=False)
                carry = lax.fori_loop(jnp.maximum(1, num_partial), num_visits, whole_step, carry)
                output_sum, weights, largest, total = carry
                last = lax.rem(num_visits - 1, STAGES)
                plgpu.barrier_wait(value_ready.at[last])
                output_sum = gpu.add_product(output_sum, weights, value_ring.at[last])
                plgpu.barrier_arrive(value_free.at[last])
                return output_sum, largest, total

            @pl.when(warpgroup == 1)
            def give_first_turn():
                plgpu.barrier_arrive(turn.at[0])

            plgpu.barrier_wait(query_ready.at[warpgroup])
            carry = (
                gpu.full((ROWS, H), 0.0, layout=MATRIX),
                gpu.full((ROWS,), SMALLEST, layout=PER_ROW),
                gpu.full((ROWS,), 0.0, layout=PER_ROW),
            )
            carry = lax.cond(num_visits > 0, visit_all, lambda carry: carry, carry)
            output_sum, largest, total = carry

            @pl.when(warpgroup == 0)
            def take_last_turn():
                plgpu.barrier_wait(turn.at[0])

            empty = end <= start
            factor = jnp.where(empty, 0.0, 1.0 / total)
            # The queries have been read by all products: their place takes the output.
            queries[...] = (output_sum * per_row(factor, H)).astype(query.dtype)
            natural = largest * (1 / LOG2_E) + jnp.log(total)
            lse_buffer.at[warpgroup][...] = jnp.where(empty, MASKED, natural)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(queries, output.at[batch, head, rows])
            plgpu.copy_smem_to_gmem(lse_buffer.at[warpgroup], lse.at[batch, head, rows])
            plgpu.wait_smem_to_gmem(0)

    ring = swizzled(STAGES, KEY_BLOCK, H, dtype=key.dtype)
    per_slot = plgpu.Barrier(num_barriers=STAGES)
    read_by_all = plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES)
    return gpu_kernel(
        attention_forward,
        interpret=interpret,
        approx_math=True,
        out_type=(
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((B, N, T), jnp.float32),
        ),
        scratch_types=[
            swizzled(WARPGROUPS, ROWS, H, dtype=query.dtype),
            ring,
            ring,
            plgpu.SMEM((WARPGROUPS, ROWS), jnp.float32),
            plgpu.Barrier(num_barriers=WARPGROUPS),
            per_slot,
            per_slot,
            read_by_all,
            read_by_all,
            plgpu.Barrier(num_barriers=WARPGROUPS),
        ],
        grid=(B, K, num_blocks, members),
        grid_names=("batch", "kv_head", "block", "member"),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
    )(query, key, value, key_start, key_end, ranges)
