"""Backward kernel of `flash_tpu.py`: all three gradients in one walk, five products a block.

The walk is the forward kernel's. The gradient of a block of queries stays in VMEM while blocks of
keys pass; those of keys and values, which have G times fewer heads, stay there for a whole key
head. Formulas in `chunked_backward.py`: the log-sum-exp gives the weights again without a running
maximum, and what a row contributes through the softmax's denominator comes in as `row_sum`, which
also carries the gradient of the log-sum-exp itself: dS = P * (dP - row_sum) * scale.

Scores stand with keys along sublanes and rows along lanes: then dV = P^T dO and dK = dS^T Q need no
transposed block, only dQ does, and what belongs to a row (interval, log-sum-exp, row sum) is a
vector along lanes as it lies in memory. Every sum has one order: results are the same in every run.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from llama_jax.kernels.attention.flash_tpu_blocks import Blocks, Ranges
from llama_jax.kernels.attention.flash_tpu_tile import LOG2_E, call, contract, specs, visible
from llama_jax.kernels.attention.reference import MASKED


def backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    start: jax.Array,
    end: jax.Array,
    gradient: jax.Array,
    lse: jax.Array,
    row_sum: jax.Array,
    met: Ranges,
    blocks: Blocks,
    *,
    scale: float,
    query_dtype: jnp.dtype,
    interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of query, in `query_dtype`, and of key and value, in theirs.

    Args:
      query: `[B, K, G, T, H]`, T whole blocks; `gradient`, of the output, is like it.
      key, value: `[B, K, S, H]`, S whole blocks, as many as have their gradients in VMEM at once.
      start, end: int32 `[B, blocks, 1, queries]`.
      lse, row_sum: float32 `[B, K, blocks, 1, rows]`.
    """
    B, K, _, _, H = query.shape
    S = key.shape[2]

    def all_keys_index(b, h, i, j, *scalars):
        return b, h, 0, 0

    part = specs(blocks, H)
    all_keys_spec = pl.BlockSpec((None, None, S, H), all_keys_index)
    return call(
        functools.partial(_kernel, blocks=blocks, scale=scale),
        (met.first, met.last, met.full_first, met.full_last),
        query,
        key,
        value,
        start,
        end,
        gradient,
        lse,
        row_sum,
        grid=(B, K, blocks.num_query_blocks, met.most),
        parallel=2,
        in_specs=[
            part.query,
            part.key,
            part.key,
            part.interval,
            part.interval,
            part.query,
            part.row,
            part.row,
        ],
        out_specs=[part.query, all_keys_spec, all_keys_spec],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query_dtype),
            jax.ShapeDtypeStruct(key.shape, key.dtype),
            jax.ShapeDtypeStruct(value.shape, value.dtype),
        ],
        scratch=[
            pltpu.VMEM((blocks.rows, H), jnp.float32),
            pltpu.VMEM((S, H), jnp.float32),
            pltpu.VMEM((S, H), jnp.float32),
        ],
        name="flash_tpu_backward",
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
    gradient,
    lse,
    row_sum,
    of_query,
    of_key,
    of_value,
    query_total,
    key_total,
    value_total,
    *,
    blocks: Blocks,
    scale: float,
):
    b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    at = b * blocks.num_query_blocks + i
    block = first[at] + j
    touched = block < last[at]
    full = (block >= full_first[at]) & (block < full_last[at])
    H = query.shape[-1]
    last_step = j == pl.num_programs(3) - 1

    @pl.when((i == 0) & (j == 0))
    def begin_head():
        key_total[...] = jnp.zeros(key_total.shape, jnp.float32)
        value_total[...] = jnp.zeros(value_total.shape, jnp.float32)

    @pl.when(j == 0)
    def begin():
        query_total[...] = jnp.zeros(query_total.shape, jnp.float32)

    def add_keys(part: int, masked: bool):
        keys = pl.ds(part * blocks.compute_keys, blocks.compute_keys)
        first_key = block * blocks.keys + part * blocks.compute_keys
        totals = pl.ds(pl.multiple_of(first_key, blocks.compute_keys), blocks.compute_keys)
        queries = query[...].reshape(blocks.rows, H)
        gradients = gradient[...].reshape(blocks.rows, H)
        scores = contract(key[keys, :], queries, 1, 1)
        exponents = scores * (scale * LOG2_E) - lse[...] * LOG2_E
        if masked:
            # The heads of a group see the same.
            bounds = (jnp.tile(x[...], (1, blocks.group)) for x in (start, end))
            seen = visible(*bounds, first_key, scores.shape, 0)
            exponents = jnp.where(seen, exponents, MASKED)
        weights = jnp.exp2(exponents)
        value_total[totals, :] += contract(weights.astype(gradients.dtype), gradients, 1, 0)
        of_weights = contract(value[keys, :], gradients, 1, 1)
        of_scores = (weights * (of_weights - row_sum[...])).astype(queries.dtype)
        key_total[totals, :] += contract(of_scores, queries, 1, 0)
        query_total[...] += contract(of_scores, key[keys, :], 0, 0)

    def add_block(masked: bool):
        for part in range(blocks.keys // blocks.compute_keys):
            add_keys(part, masked)

    pl.when(touched & full)(functools.partial(add_block, masked=False))
    pl.when(touched & jnp.logical_not(full))(functools.partial(add_block, masked=True))

    @pl.when(last_step)
    def finish():
        of_query[...] = (scale * query_total[...]).reshape(of_query.shape).astype(of_query.dtype)

    @pl.when(last_step & (i == blocks.num_query_blocks - 1))
    def finish_head():
        of_key[...] = (scale * key_total[...]).astype(of_key.dtype)
        of_value[...] = value_total[...].astype(of_value.dtype)
