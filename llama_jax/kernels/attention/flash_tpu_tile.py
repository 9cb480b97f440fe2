"""Pieces that both kernels of `flash_tpu.py` share: products, columns, grids."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from llama_jax.kernels.attention.flash_tpu_blocks import LANES, Blocks

# The unit computes powers of two: scores are kept in units of ln 2 and cost no product more.
LOG2_E = math.log2(math.e)
# Of 64 MiB (v5p and each core of tpu7x; the others have 128): the rest is XLA's.
VMEM_BYTES = 48 * 1024 * 1024


def contract(left: jax.Array, right: jax.Array, left_dim: int, right_dim: int) -> jax.Array:
    """Product of two matrices over one dim of each, float32.

    float32 operands are multiplied as such: by default the unit would round them to bfloat16.
    """
    exact = left.dtype == jnp.float32
    # Not None, which is whatever `jax_default_matmul_precision` says: bfloat16 has only one.
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
    dims = (((left_dim,), (right_dim,)), ((), ()))
    return jax.lax.dot_general(
        left, right, dims, precision=precision, preferred_element_type=jnp.float32
    )


def column(row: jax.Array) -> jax.Array:
    """`[1, rows]` as `[rows, 128]`, the same in every lane."""
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T


def row(column: jax.Array) -> jax.Array:
    """`[rows, 128]`, the same in every lane, as `[1, rows]`."""
    return column.T[:1]


def across(column: jax.Array, width: int) -> jax.Array:
    """`[rows, 128]`, the same in every lane, as `[rows, width]`."""
    if width <= LANES:
        return column[:, :width]
    return jnp.tile(column, (1, width // LANES))


def visible(start: jax.Array, end: jax.Array, first_key, shape: tuple[int, int], key_dim: int):
    """bool `shape`: which keys, from `first_key` on along `key_dim`, lie in the intervals."""
    keys = first_key + jax.lax.broadcasted_iota(jnp.int32, shape, key_dim)
    return (keys >= start) & (keys < end)


def key_block(blocks: Blocks, b, i, j, first, last):
    """Which block of keys step j of block of queries i fetches: after its last, what comes next.

    So the first block of the next block of queries is on its way while the last one is computed.
    """
    at = b * blocks.num_query_blocks + i
    following = jnp.where(i + 1 < blocks.num_query_blocks, at + 1, b * blocks.num_query_blocks)
    block = first[at] + j
    return jnp.where(block < last[at], block, first[following])


class Specs(NamedTuple):
    """Which part of an array step (b, h, i, j) of the grid is given.

    Attributes:
      query: of `[B, K, G, T, H]`, block of queries i.
      key: of `[B, K, S, H]`, the block of `key_block`.
      interval: of `[B, blocks, 1, queries]`, block of queries i.
      row: of `[B, K, blocks, 1, rows]`, block of queries i.
    """

    query: pl.BlockSpec
    key: pl.BlockSpec
    interval: pl.BlockSpec
    row: pl.BlockSpec


def specs(blocks: Blocks, head_dim: int) -> Specs:
    """For a grid of rows of the batch, key heads, blocks of queries, and turns."""

    def query_index(b, h, i, j, *scalars):
        return b, h, 0, i, 0

    def key_index(b, h, i, j, first, last, *scalars):
        return b, h, key_block(blocks, b, i, j, first, last), 0

    def interval_index(b, h, i, j, *scalars):
        return b, i, 0, 0

    def row_index(b, h, i, j, *scalars):
        return b, h, i, 0, 0

    return Specs(
        pl.BlockSpec((None, None, blocks.group, blocks.queries, head_dim), query_index),
        pl.BlockSpec((None, None, blocks.keys, head_dim), key_index),
        pl.BlockSpec((None, None, 1, blocks.queries), interval_index),
        pl.BlockSpec((None, None, None, 1, blocks.rows), row_index),
    )


def call(
    kernel,
    scalars,
    *arguments: jax.Array,
    grid: tuple[int | jax.Array, ...],
    parallel: int,
    in_specs,
    out_specs,
    out_shape,
    scratch,
    name: str,
    interpret: bool,
):
    """`pl.pallas_call` over a grid whose first `parallel` dims may be shared among cores.

    A dim of the grid may be a number that is known when it runs.
    """
    dims = ("parallel",) * parallel + ("arbitrary",) * (len(grid) - parallel)
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch,
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(dimension_semantics=dims, vmem_limit_bytes=VMEM_BYTES),
        name=name,
        interpret=interpret,
    )(*scalars, *arguments)
