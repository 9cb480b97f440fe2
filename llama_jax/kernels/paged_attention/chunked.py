"""Paged attention in plain jnp, a block of pages at a time: fast anywhere, in O(block) memory.

Flash attention's online softmax (arXiv 2205.14135) over a loop that is as long as the longest row
needs: rows in a table for 128K tokens cost what they hold and not what they could. On a CPU rows go
through that loop in small groups of about the same length, so that a block stays in its caches and
no short row waits for a long one.

What a row gets does not depend, bit for bit, on the other rows, on its index among them, on the
width of the table, on which pages it was given, or on how many more blocks the others need: blocks
are cut at fixed positions of a row, and one that a row sees nothing of leaves the row's state as it
is (the maximum stays, the factor is exactly 1, the sums grow by 0). On a CPU a query token gets the
same bits alone as among others, because the order of summation of a matrix product there depends on
what is contracted alone, once there are two rows of queries: so a prompt may be cut anywhere, and a
replayed token is the same token. A plain sum has no such order, its loop is vectorised as its shape
suggests, so the sum of the probabilities is a product too.

XLA's CPU backend has no look-up of 16-bit or FP8 floats: it turns the whole array into float32
first. There, pages of float32 or int8 are fast (`pages.py: quick_page_dtype`).

Letters: B rows, Q query tokens of a row, S tokens of a block, N query heads, K key and value heads,
G = N / K, R = G * Q query rows of a key head, H head dim.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.paged_attention.case import PagedAttentionCase
from llama_jax.kernels.paged_attention.pages import KVPages

# Tokens of a block; a page larger than that is a block by itself.
BLOCK = 128
# An accelerator wants products that fill its matrix units, and few turns of the loop, each of which
# a GPU's host has to start.
ACCELERATOR_BLOCK = 512
# Keys, values and scores of the rows at once on a CPU: what about fits the caches of a core.
_GROUP_BYTES = 2**21
# A matrix of one row is multiplied by another kernel on a CPU, which sums in another order.
_LEAST_QUERY_ROWS = 2
# Pages of one head of each row: an index is a page and a head, a slice `[1, page_size, 1, H]`.
_PAGES_OF_HEADS = lax.GatherDimensionNumbers(
    offset_dims=(3, 4), collapsed_slice_dims=(0, 2), start_index_map=(0, 2)
)


def refusal(case: PagedAttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can. Plain jnp takes everything."""
    return None


def options(case: PagedAttentionCase) -> dict[str, int | None]:
    """Keywords of `paged_attention` that suit the platform."""
    if case.platform != "cpu":
        return {"block": ACCELERATOR_BLOCK, "rows_at_once": None, "dtype": case.dtype}
    numbers = 2 * case.num_kv_heads * case.head_dim + case.num_heads * case.num_queries
    rows = _GROUP_BYTES // (4 * numbers * max(BLOCK, case.page_size))
    # A power of two, as numbers of rows are.
    rows = 1 << max(0, rows.bit_length() - 1)
    return {"block": BLOCK, "rows_at_once": rows, "dtype": jnp.dtype(jnp.float32)}


def paged_attention(
    query: jax.Array,
    pages: KVPages,
    page_table: jax.Array,
    lengths: jax.Array,
    *,
    scale: float,
    block: int = BLOCK,
    rows_at_once: int | None = None,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Same contract as `reference.paged_attention`.

    Args:
      block: tokens of a row at once, rounded to whole pages.
      rows_at_once: rows that go through the loop together; None: all.
      dtype: that products take; by default the query's. They are summed in float32 either way.
    """
    B, N, Q, H = query.shape
    K = pages.num_kv_heads
    R = max(N // K * Q, _LEAST_QUERY_ROWS)
    pages_a_block = max(1, block // pages.page_size)
    # Of the padding no page is looked at: it is behind every row's length.
    page_table = jnp.pad(page_table, ((0, 0), (0, -page_table.shape[1] % pages_a_block)))
    rows = query.reshape(B, K, N // K * Q, H).astype(dtype or query.dtype)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, R - rows.shape[2]), (0, 0)))

    def attend(rows, page_table, lengths):
        return _attend_rows(
            rows, pages, page_table, lengths, Q=Q, scale=scale, pages_a_block=pages_a_block
        )

    if rows_at_once is None or rows_at_once >= B:
        output = attend(rows, page_table, lengths)
    else:
        output = _by_length(attend, rows_at_once, rows, page_table, lengths)
    return output[:, :, : N // K * Q].reshape(B, N, Q, H).astype(query.dtype)


def _by_length(attend, size: int, rows, page_table, lengths) -> jax.Array:
    """`attend` for groups of `size` rows of about the same length, one group after another."""
    B = lengths.shape[0]
    num_groups = math.ceil(B / size)
    padding = num_groups * size - B
    order = jnp.argsort(lengths)
    place = jnp.argsort(order)  # where each row went
    sorted_rows = tuple(
        jnp.pad(x[order], ((0, padding),) + ((0, 0),) * (x.ndim - 1)).reshape(
            num_groups, size, *x.shape[1:]
        )
        for x in (rows, page_table, lengths)
    )
    output = lax.map(lambda group: attend(*group), sorted_rows)
    return output.reshape(num_groups * size, *output.shape[2:])[place]


def _attend_rows(rows, pages, page_table, lengths, *, Q, scale, pages_a_block) -> jax.Array:
    """`[B, K, R, H]` -> float32 of the same shape."""
    B, K, R, H = rows.shape
    S = pages_a_block * pages.page_size
    ends = lengths[:, None] - Q + 1 + jnp.arange(Q, dtype=jnp.int32)  # [B, Q]
    ends = jnp.tile(ends, (1, R // Q))  # of G heads, or of one and the padding
    ones = jnp.ones((S, 2), jnp.float32)

    def add_block(index, state):
        largest, total, output = state
        table = lax.dynamic_slice_in_dim(page_table, index * pages_a_block, pages_a_block, axis=1)
        key, value = (_heads(pages, table, which).astype(rows.dtype) for which in (0, 1))
        slots = index * S + jnp.arange(S, dtype=jnp.int32)
        # Probabilities of slots behind the length are 0, but 0 * NaN is NaN.
        value = jnp.where((slots < lengths[:, None])[:, None, :, None], value, 0)
        scores = scale * jnp.einsum(
            "BKRH,BKSH->BKRS", rows, key, preferred_element_type=jnp.float32
        )
        key_scales, value_scales = _scales(pages, table)
        if key_scales is not None:
            scores = scores * key_scales
        visible = (slots < ends[..., None])[:, None]  # [B, 1, R, S]
        scores = jnp.where(visible, scores, MASKED)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights = jnp.where(visible, jnp.exp(scores - new_largest[..., None]), 0.0)
        shrink = jnp.exp(largest - new_largest)
        total = total * shrink + weights.reshape(-1, S).dot(ones)[:, 0].reshape(B, K, R)
        if value_scales is not None:
            weights = jnp.where(visible, weights * value_scales, 0.0)
        product = jnp.einsum(
            "BKRS,BKSH->BKRH",
            weights.astype(rows.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        return new_largest, total, output * shrink[..., None] + product

    zeros = jnp.zeros((B, K, R), jnp.float32)
    state = (zeros + MASKED, zeros, jnp.zeros((B, K, R, H), jnp.float32))
    num_blocks = (jnp.max(lengths) + S - 1) // S
    _, total, output = lax.fori_loop(0, num_blocks, add_block, state)
    return output / jnp.where(total == 0.0, 1.0, total)[..., None]


def _heads(pages: KVPages, table: jax.Array, which: int) -> jax.Array:
    """Keys (`which` 0) or values (1) of the pages in `table` `[B, P]`: `[B, K, S, H]`.

    Looked up head by head, which brings heads in front of tokens without another copy.
    """
    B, num_pages = table.shape
    K, H = pages.num_kv_heads, pages.pages.shape[-1]
    heads = 2 * jnp.arange(K, dtype=jnp.int32)[:, None] + which
    shape = (B, K, num_pages)
    indices = jnp.stack(
        [jnp.broadcast_to(table[:, None], shape), jnp.broadcast_to(heads, shape)], axis=-1
    )
    found = lax.gather(
        pages.pages, indices, _PAGES_OF_HEADS, (1, pages.page_size, 1, H), mode="clip"
    )  # [B, K, P, page_size, H]
    return found.reshape(B, K, -1, H)


def _scales(pages: KVPages, table: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
    """Scales of keys and of values, `[B, K, 1, S]`; None where pages are not quantised."""
    if pages.scales is None:
        return None, None
    scales = jnp.take(pages.scales, table, axis=0, mode="clip")  # [B, P, 2 K, page_size]
    scales = jnp.moveaxis(scales, 1, 2).reshape(table.shape[0], pages.num_kv_heads, 2, 1, -1)
    return scales[:, :, 0], scales[:, :, 1]
