"""Attention over paged keys and values in plain jnp. The oracle of the kernels.

It gathers each row's pages into one piece, as long as its table: fine on a CPU, and twice the
memory traffic of what it reads. What lies behind a row's length, in a page that another row had
before or wherever an unused entry of the table points, is never seen, not even if it is NaN.

Letters: B rows, Q query tokens of a row, S slots of a row's table, N query heads, K key and value
heads, G = N / K, H head dim.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.paged_attention.case import PagedAttentionCase
from llama_jax.kernels.paged_attention.pages import KVPages


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
    """Attention of the last Q tokens of each row over the whole row, causal among them.

    Args:
      query: `[B, N, Q, H]`, of the tokens at positions `lengths - Q` to `lengths - 1`, whose keys
        and values are in the pages already.
      pages: of this layer.
      page_table: int32 `[B, P]`; entries that a row's length does not reach may be anything.
      lengths: int32 `[B]`, tokens of each row, at most `P * page_size`; 0 for a row that is not in
        use.
      scale: multiplies the scores, usually `H ** -0.5`.

    Returns:
      `[B, N, Q, H]` in the dtype of `query`; zeros where a query's position would be negative.
    """
    B, N, Q, H = query.shape
    K = pages.num_kv_heads
    rows = jnp.take(pages.pages, page_table, axis=0, mode="clip")  # [B, P, page_size, 2 K, H]
    S = rows.shape[1] * rows.shape[2]
    rows = rows.reshape(B, S, K, 2, H).astype(query.dtype)
    slots = jnp.arange(S, dtype=jnp.int32)
    # Probabilities of slots behind the length are 0, but 0 * NaN is NaN.
    held = (slots < lengths[:, None])[..., None, None]
    key, value = rows[..., 0, :], jnp.where(held, rows[..., 1, :], 0)

    grouped = query.reshape(B, K, N // K, Q, H)
    scores = scale * jnp.einsum(
        "BKGQH,BSKH->BKGQS", grouped, key, preferred_element_type=jnp.float32
    )
    if pages.scales is not None:
        scales = jnp.take(pages.scales, page_table, axis=0, mode="clip")  # [B, P, 2 K, page_size]
        scales = jnp.moveaxis(scales, 1, 2).reshape(B, K, 2, 1, 1, S)
        scores = scores * scales[:, :, 0]
    ends = lengths[:, None] - Q + 1 + jnp.arange(Q, dtype=jnp.int32)  # [B, Q]
    visible = (slots < ends[..., None])[:, None, None]  # [B, 1, 1, Q, S]
    scores = jnp.where(visible, scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(visible, weights, 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if pages.scales is not None:
        weights = jnp.where(visible, weights * scales[:, :, 1], 0.0)
    output = jnp.einsum(
        "BKGQS,BSKH->BKGQH", weights.astype(query.dtype), value, preferred_element_type=jnp.float32
    )
    output = output / jnp.where(total == 0.0, 1.0, total)
    return output.reshape(B, N, Q, H).astype(query.dtype)
