"""Forward kernel of `flash_tpu.py`: one block of queries over the blocks of keys it touches.

Flash attention's online softmax (arXiv 2205.14135): the maximum of each row so far, the sum and the
unnormalised output stay in VMEM while blocks of keys pass. Maxima are kept the same in all 128
lanes, so that they meet scores without a broadcast; sums are kept one for each lane, and added up
across lanes once, at the end.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from llama_jax.kernels.attention.flash_tpu_blocks import LANES, Blocks, Ranges
from llama_jax.kernels.attention.flash_tpu_tile import (
    LOG2_E,
    across,
    call,
    column,
    contract,
    row,
    specs,
    visible,
)
from llama_jax.kernels.attention.reference import MASKED


def forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    start: jax.Array,
    end: jax.Array,
    met: Ranges,
    blocks: Blocks,
    *,
    scale: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """Output in the shape and dtype of `query`, and LSE, float32 `[B, K, blocks, 1, rows]`.

    Args:
      query: `[B, K, G, T, H]`, T whole blocks.
      key, value: `[B, K, S, H]`, S whole blocks.
      start, end: int32 `[B, blocks, 1, queries]`.
    """
    B, K, _, _, H = query.shape
    rows = blocks.rows
    part = specs(blocks, H)
    return call(
        functools.partial(_kernel, blocks=blocks, scale=scale),
        (met.first, met.last, met.full_first, met.full_last),
        query,
        key,
        value,
        start,
        end,
        grid=(B, K, blocks.num_query_blocks, met.most),
        parallel=3,
        in_specs=[part.query, part.key, part.key, part.interval, part.interval],
        out_specs=[part.query, part.row],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((B, K, blocks.num_query_blocks, 1, rows), jnp.float32),
        ],
        scratch=[
            pltpu.VMEM((rows, LANES), jnp.float32),
            pltpu.VMEM((rows, LANES), jnp.float32),
            pltpu.VMEM((rows, H), jnp.float32),
            pltpu.VMEM((blocks.queries, LANES), jnp.int32),
            pltpu.VMEM((blocks.queries, LANES), jnp.int32),
        ],
        name="flash_tpu_forward",
        interpret=interpret,
    )


def _kernel(
    first,
    last,
    full_first,
    full_last,
    query,
    key,
    value,
    start,
    end,
    output,
    lse,
    largest,
    total,
    sum_of_values,
    start_column,
    end_column,
    *,
    blocks: Blocks,
    scale: float,
):
    b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    at = b * blocks.num_query_blocks + i
    block = first[at] + j
    touched = block < last[at]
    full = (block >= full_first[at]) & (block < full_last[at])
    compute_keys, H = blocks.compute_keys, query.shape[-1]

    @pl.when(j == 0)
    def begin():
        # Above a masked score and below any real one: what is masked weighs nothing even in a row
        # that has seen nothing yet.
        largest[...] = jnp.full(largest.shape, MASKED / 2, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        sum_of_values[...] = jnp.zeros(sum_of_values.shape, jnp.float32)
        start_column[...] = column(start[...])
        end_column[...] = column(end[...])

    def add_keys(part: int, masked: bool):
        keys = pl.ds(part * compute_keys, compute_keys)
        rows = query[...].reshape(blocks.rows, H)
        scores = contract(rows, key[keys, :], 1, 1) * (scale * LOG2_E)
        if masked:
            seen = visible(
                across(start_column[...], compute_keys),
                across(end_column[...], compute_keys),
                block * blocks.keys + part * compute_keys,
                (blocks.queries, compute_keys),
                1,
            )
            # The heads of a group see the same.
            by_head = scores.reshape(blocks.group, *seen.shape)
            scores = jnp.where(seen[None], by_head, MASKED).reshape(scores.shape)
        before = largest[...]
        now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        weights = jnp.exp2(scores - across(now, compute_keys))
        shrink = jnp.exp2(before - now)
        largest[...] = now
        by_lane = weights[:, :LANES]
        for lane in range(LANES, compute_keys, LANES):
            by_lane += weights[:, lane : lane + LANES]
        total[...] = total[...] * shrink + by_lane
        values = contract(weights.astype(value.dtype), value[keys, :], 1, 0)
        sum_of_values[...] = sum_of_values[...] * across(shrink, H) + values

    def add_block(masked: bool):
        for part in range(blocks.keys // compute_keys):
            add_keys(part, masked)

    pl.when(touched & full)(functools.partial(add_block, masked=False))
    pl.when(touched & jnp.logical_not(full))(functools.partial(add_block, masked=True))

    @pl.when(j == pl.num_programs(3) - 1)
    def finish():
        whole = jnp.broadcast_to(jnp.sum(total[...], axis=1, keepdims=True), total.shape)
        empty = whole == 0.0
        whole = jnp.where(empty, 1.0, whole)
        result = sum_of_values[...] / across(whole, H)
        output[...] = result.reshape(output.shape).astype(output.dtype)
        logarithm = (largest[...] + jnp.log2(whole)) / LOG2_E
        lse[...] = row(jnp.where(empty, MASKED, logarithm))
