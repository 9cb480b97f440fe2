"""The Hopper kernel of paged decode attention: one part of a row's tokens for one key head.

A block is one warpgroup. It takes its tokens 64 at a time, with a ring of three stages that the TMA
fills, and turns both products around, because decoding has few queries: with R = Q * G query rows
for one key head,

    scores^T [64, R] = keys [64, H] query^T       output^T [H, R] += values^T [H, 64] weights^T

so that tokens and head dim fill the 64 rows that a WGMMA has at least, and the R queries are its
columns, 8 at least. With the queries as rows, 4 of 64 would be used at Llama's G = 4, and the
softmax would be computed for all 64. Keys come from shared memory as they are, values transposed by
the instruction. Quantised pages go through registers, where they become bfloat16 exactly: keys
straight into the product, values by way of shared memory; their scales multiply scores and weights.

Running maximum and output are kept as in flash attention (arXiv 2205.14135); the running sum stays
spread over the threads and is added up once at the end. The maximum over tokens crosses the four
warps, and they meet before each copy and before the second product: about half a dozen barriers of
128 threads a tile, which the other blocks of the SM hide or do not (to be measured).

Letters: B rows, Q query tokens of a row, K key heads, G query heads a key head, R = Q * G rounded
up to 8, H head dim, TILE tokens.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.mosaic_gpu_portability import (
    SWIZZLE_BYTES,
    Instructions,
    gpu_kernel,
    swizzled,
)
from llama_jax.kernels.paged_attention.pages import KVPages

# Tokens at once: the rows of a WGMMA. A page is one tile or several.
TILE = 64
# Two blocks of three stages in bfloat16 at H = 128, or three of int8, fit into an SM's memory: 150
# to 200 KB under way, where 4.8 TB/s * 1 us / 132 SMs = 36 KB must be.
STAGES = 3

_MATRIX = plgpu.Layout.WGMMA
_ROWS, _COLUMNS = _MATRIX.reduce(1), _MATRIX.reduce(0)


def attend_parts(
    query: jax.Array,
    pages: KVPages,
    page_table: jax.Array,
    lengths: jax.Array,
    *,
    group: int,
    num_queries: int,
    num_parts: int,
    scale: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """Attention over each part of each row.

    Args:
      query: `[B, K, R, H]`; row `q * group + g` of the R is query token q of head g.
      pages: with pages of a multiple of `TILE` tokens.
      page_table: int32 `[B, P]`.
      lengths: int32 `[B]`.
      group, num_queries: G and Q.
      num_parts: into how many parts the tiles of a row are divided.
      interpret: run on the CPU.

    Returns:
      output: float32 `[B, K, parts, H, R]`, transposed as the kernel has it.
      log2_total: float32 `[B, K, parts, R]`, logarithm to base 2 of the sum of exponentials;
        `MASKED` where a query sees nothing of a part, and output is 0.
    """
    B, K, R, H = query.shape
    dtype, page_dtype = query.dtype, pages.pages.dtype
    inputs = [query, pages.pages, page_table, lengths]
    num_copies = 2
    scratch = {
        "query_tile": swizzled(R, H, dtype=dtype),
        "keys": _page_tiles(STAGES, TILE, H, dtype=page_dtype),
        "values": _page_tiles(STAGES, TILE, H, dtype=page_dtype),
        "weights": swizzled(R, TILE, dtype=dtype),
        "query_arrived": plgpu.Barrier(num_barriers=1),
    }
    if pages.scales is not None:
        inputs.append(pages.scales)
        num_copies = 4
        scratch["scales"] = plgpu.SMEM((STAGES, 2, TILE), jnp.float32)
        scratch["wide_values"] = swizzled(TILE, H, dtype=dtype)
    scratch["arrived"] = plgpu.Barrier(num_arrivals=num_copies, num_barriers=STAGES)
    body = functools.partial(
        _attend_part,
        instructions=Instructions(interpret),
        group=group,
        num_queries=num_queries,
        # Exponentials are taken to base 2, which is what the hardware has.
        scale=scale * math.log2(math.e),
    )
    body.__name__ = "paged_attention"  # for profiles
    kernel = gpu_kernel(
        body,
        interpret=interpret,
        approx_math=True,
        out_type=(
            jax.ShapeDtypeStruct((B, K, num_parts, H, R), jnp.float32),
            jax.ShapeDtypeStruct((B, K, num_parts, R), jnp.float32),
        ),
        scratch_types=scratch,
        # Blocks that start together read heads that lie together.
        grid=(num_parts, B, K),
        grid_names=("part", "row", "head"),
    )
    return kernel(*inputs)


def _page_tiles(*shape: int, dtype: jnp.dtype) -> plgpu.SMEM:
    """As `swizzled`, in narrower rows where a head of 8-bit numbers is no 128 bytes."""
    row_bytes = shape[-1] * jnp.dtype(dtype).itemsize
    if row_bytes >= SWIZZLE_BYTES:
        return swizzled(*shape, dtype=dtype)
    transforms = (plgpu.TilingTransform((8, shape[-1])), plgpu.SwizzleTransform(row_bytes))
    return plgpu.SMEM(shape, dtype, transforms=transforms)


def _attend_part(
    query,
    pages,
    page_table,
    lengths,
    *refs,
    instructions: Instructions,
    group: int,
    num_queries: int,
    scale: float,
    query_tile,
    keys,
    values,
    weights,
    query_arrived,
    arrived,
    scales=None,
    wide_values=None,
):
    *scale_pages, output, log2_total = refs
    part, row, head = (lax.axis_index(name) for name in ("part", "row", "head"))
    num_parts = lax.axis_size("part")
    (R, H), dtype = query_tile.shape, query_tile.dtype
    length = lengths[row]
    num_tiles = (length + TILE - 1) // TILE
    first, last = part * num_tiles // num_parts, (part + 1) * num_tiles // num_parts
    tiles_per_page = pages.shape[1] // TILE
    columns = functools.partial(lax.broadcast_in_dim, broadcast_dimensions=(1,))
    rows = functools.partial(lax.broadcast_in_dim, broadcast_dimensions=(0,))

    def fetch(tile):
        slot = lax.rem(tile - first, STAGES)
        page = page_table[row, tile // tiles_per_page]
        tokens = pl.ds(lax.rem(tile, tiles_per_page) * TILE, TILE)
        for kind, tiles in enumerate((keys, values)):
            source = pages.at[page, tokens, 2 * head + kind]
            plgpu.copy_gmem_to_smem(source, tiles.at[slot], arrived.at[slot])
            if scales is not None:
                source = scale_pages[0].at[page, 2 * head + kind, tokens]
                plgpu.copy_gmem_to_smem(source, scales.at[slot, kind], arrived.at[slot])

    def token_of(shape):
        """Which of the tile's tokens an element `[TILE, ...]` belongs to."""
        return instructions.iota(shape, 0, layout=_MATRIX)

    def attend_tile(tile, state):
        largest, total, out = state
        slot = lax.rem(tile - first, STAGES)
        plgpu.barrier_wait(arrived.at[slot])
        # Into the slot of the tile before. Pallas makes all warps meet before it issues a copy, and
        # each has waited for its products of that tile: none still reads the slot.
        pl.when(tile + STAGES - 1 < last)(lambda: fetch(tile + STAGES - 1))

        key = keys.at[slot]
        if scales is not None:
            key = _widened(instructions, key, dtype)
        scores = instructions.product(key, query_tile, transpose_right=True)  # [TILE, R]
        if scales is None:
            scores = scores * scale
        else:
            key_scales = instructions.load(scales.at[slot, 0], layout=_ROWS) * scale
            scores = scores * rows(key_scales, (TILE, R))
        # Query token q sees positions up to its own, length - Q + q.
        query_token = instructions.iota((TILE, R), 1, layout=_MATRIX) // group
        left = length - tile * TILE
        visible = token_of((TILE, R)) <= left - num_queries + query_token
        scores = jnp.where(visible, scores, MASKED)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=0))
        new_weights = jnp.exp2(scores - columns(new_largest, (TILE, R)))
        new_weights = jnp.where(visible, new_weights, 0.0)
        shrink = jnp.exp2(largest - new_largest)
        total = total * columns(shrink, (TILE, R)) + new_weights

        # What lies behind the row's last token is weighted 0, but 0 * NaN is NaN.
        if scales is None:
            value = values.at[slot]

            @pl.when(left < TILE)
            def clear():
                kept = instructions.load(value, layout=_MATRIX)
                value[...] = jnp.where(token_of((TILE, H)) < left, kept, jnp.zeros_like(kept))
        else:
            value_scales = instructions.load(scales.at[slot, 1], layout=_ROWS)
            new_weights = new_weights * rows(value_scales, (TILE, R))
            new_weights = jnp.where(visible, new_weights, 0.0)
            wide = _widened(instructions, values.at[slot], dtype)
            wide = jnp.where(token_of((TILE, H)) < left, wide, jnp.zeros_like(wide))
            value = wide_values
            value[...] = wide
        _store_transposed(instructions, weights, new_weights.astype(dtype))
        product = _product_of_transposed(instructions, value, weights)  # [H, R]
        return new_largest, total, out * columns(shrink, (H, R)) + product

    plgpu.copy_gmem_to_smem(query.at[row, head], query_tile, query_arrived)
    for ahead in range(STAGES - 1):
        pl.when(first + ahead < last)(functools.partial(fetch, first + ahead))
    plgpu.barrier_wait(query_arrived)
    state = (
        instructions.full((R,), MASKED, layout=_COLUMNS),
        instructions.full((TILE, R), 0.0, layout=_MATRIX),
        instructions.full((H, R), 0.0, layout=_MATRIX),
    )
    largest, total, out = lax.fori_loop(first, last, attend_tile, state)
    total = jnp.sum(total, axis=0)
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    output.at[row, head, part][...] = out / columns(total, (H, R))
    log2_total.at[row, head, part][...] = jnp.where(empty, MASKED, largest + jnp.log2(total))


def _widened(instructions: Instructions, ref: Any, dtype: jnp.dtype) -> jax.Array:
    """8-bit `[TILE, H]` in registers as `dtype`, in the layout of a WGMMA's left operand."""
    narrow = instructions.load(ref, layout=plgpu.Layout.WGMMA_UPCAST_2X)
    if not jnp.issubdtype(narrow.dtype, jnp.integer):
        narrow = narrow.astype(jnp.float32)  # Hopper converts e4m3 to bfloat16 no other way.
    return instructions.layout_cast(narrow.astype(dtype), _MATRIX)


def _store_transposed(instructions: Instructions, ref: Any, x: jax.Array) -> None:
    """`ref` `[N, M]` in shared memory becomes the transpose of `x` `[M, N]`, for products."""
    if instructions.interpret:
        ref[...] = x.T
    else:
        transposed = instructions.layout_cast(x, plgpu.Layout.WGMMA_TRANSPOSED)
        ref.transpose((1, 0))[...] = transposed
    plgpu.commit_smem()


def _product_of_transposed(instructions: Instructions, left: Any, right: Any) -> jax.Array:
    """`left^T @ right^T`, float32 `[M, N]`, of 16-bit `[K, M]` and `[N, K]` in shared memory."""
    if instructions.interpret:
        return jnp.einsum("KM,NK->MN", left[...], right[...], preferred_element_type=jnp.float32)

    def multiply(accumulator):
        plgpu.wgmma(accumulator, left.transpose((1, 0)), right.transpose((1, 0)))
        return accumulator[...]

    shape = (left.shape[1], right.shape[0])
    return pl.run_scoped(multiply, plgpu.ACC(shape, jnp.float32))
