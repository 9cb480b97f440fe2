"""Paged attention in plain jnp, a block of pages at a time: fast anywhere, in O(block) memory.

Flash attention's online softmax (arXiv 2205.14135) over a loop that is as long as the longest row
of the batch needs: rows in a table for 128K tokens cost what they hold and not what they could.

What a row gets does not depend, bit for bit, on the other rows, on its index among them, on the
width of the table, on which pages it was given, or on how many more blocks the others need: blocks
are cut at fixed positions of a row, and one that a row sees nothing of leaves the row's state as it
is (the maximum stays, the factor is exactly 1, the sums grow by 0). On a CPU a query token gets the
same bits alone as among others, because the order of summation of a matrix product there depends on
what is contracted alone, once there are two rows of queries: so a prompt may be cut anywhere, and a
replayed token is the same token. A plain sum has no such order, its loop is vectorised as its shape
suggests, so the sum of the probabilities is a product too.

Letters: B rows, Q query tokens of a row, S tokens of a block, N query heads, K key and value heads,
G = N / K, H head dim.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.paged_attention.case import PagedAttentionCase
from llama_jax.kernels.paged_attention.pages import KVPages

# Tokens of a block; a page larger than that is a block by itself.
BLOCK = 128
# A matrix of one row is multiplied by another kernel on a CPU, which sums in another order.
_LEAST_QUERY_ROWS = 2


def refusal(case: PagedAttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can. Plain jnp takes everything."""
    return None


def paged_attention(
    query: jax.Array,
    pages: KVPages,
    page_table: jax.Array,
    lengths: jax.Array,
    *,
    scale: float,
) -> jax.Array:
    """Same contract as `reference.paged_attention`."""
    B, N, Q, H = query.shape
    K = pages.num_kv_heads
    G = N // K
    pages_a_block = max(1, BLOCK // pages.page_size)
    S = pages_a_block * pages.page_size
    page_table = jnp.pad(page_table, ((0, 0), (0, -page_table.shape[1] % pages_a_block)))
    rows = query.reshape(B, K, G * Q, H)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, max(0, _LEAST_QUERY_ROWS - G * Q)), (0, 0)))
    R = rows.shape[2]
    ends = lengths[:, None] - Q + 1 + jnp.arange(Q, dtype=jnp.int32)  # [B, Q]
    ends = jnp.tile(ends, (1, R // Q))  # of G heads, or of one and the padding

    ones = jnp.ones((S, 2), jnp.float32)

    def add_block(index, state):
        largest, total, output = state
        key, value, scales = _block(pages, page_table, index, pages_a_block, query.dtype)
        slots = index * S + jnp.arange(S, dtype=jnp.int32)
        # Probabilities of slots behind the length are 0, but 0 * NaN is NaN.
        value = jnp.where((slots < lengths[:, None])[:, None, :, None], value, 0)
        scores = scale * jnp.einsum(
            "BKRH,BKSH->BKRS", rows, key, preferred_element_type=jnp.float32
        )
        if scales is not None:
            scores = scores * scales[:, :, 0]
        visible = (slots < ends[..., None])[:, None]  # [B, 1, R, S]
        scores = jnp.where(visible, scores, MASKED)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights = jnp.where(visible, jnp.exp(scores - new_largest[..., None]), 0.0)
        shrink = jnp.exp(largest - new_largest)
        total = total * shrink + weights.reshape(-1, S).dot(ones)[:, 0].reshape(B, K, R)
        if scales is not None:
            weights = jnp.where(visible, weights * scales[:, :, 1], 0.0)
        product = jnp.einsum(
            "BKRS,BKSH->BKRH",
            weights.astype(query.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        return new_largest, total, output * shrink[..., None] + product

    zeros = jnp.zeros((B, K, R), jnp.float32)
    state = (zeros + MASKED, zeros, jnp.zeros((B, K, R, H), jnp.float32))
    num_blocks = (jnp.max(lengths) + S - 1) // S
    _, total, output = jax.lax.fori_loop(0, num_blocks, add_block, state)
    output = output / jnp.where(total == 0.0, 1.0, total)[..., None]
    return output[:, :, : G * Q].reshape(B, N, Q, H).astype(query.dtype)


def _block(
    pages: KVPages, page_table: jax.Array, index: jax.Array, pages_a_block: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Keys and values `[B, K, S, H]` of one block of all rows, and scales `[B, K, 2, 1, S]`."""
    B, K = page_table.shape[0], pages.num_kv_heads
    table = jax.lax.dynamic_slice_in_dim(page_table, index * pages_a_block, pages_a_block, axis=1)
    block = jnp.take(pages.pages, table, axis=0, mode="clip")  # [B, P, page_size, 2 K, H]
    block = block.reshape(B, -1, K, 2, block.shape[-1]).astype(dtype)
    block = block.transpose(0, 2, 3, 1, 4)  # [B, K, 2, S, H]
    scales = pages.scales
    if scales is not None:
        scales = jnp.take(scales, table, axis=0, mode="clip")  # [B, P, 2 K, page_size]
        scales = jnp.moveaxis(scales, 1, 2).reshape(B, K, 2, 1, -1)
    return block[:, :, 0], block[:, :, 1], scales
