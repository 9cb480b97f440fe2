"""Rows of random keys and values, contiguous and scattered over shuffled pages."""

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.kernels.attention import reference as attention_reference
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.paged_attention.pages import KVPages, init_pages, write_pages


def random_rows(
    lengths, *, num_heads, num_kv_heads, num_queries=1, head_dim=128, page_size=64,
    dtype=jnp.bfloat16, page_dtype=None, seed=0,
):  # fmt: skip
    """Query, pages, page table and lengths, and the keys and values `[B, K, S, H]` in one piece.

    Unused entries of the table point at pages of others, at page 0 or out of bounds; every slot
    that no token is written to holds NaN.
    """
    random = np.random.default_rng(seed)
    num_rows, num_pages_a_row = len(lengths), max(1, -(-max(lengths) // page_size))
    num_pages = num_rows * num_pages_a_row + 2
    shuffled = random.permutation(num_pages)[: num_rows * num_pages_a_row]
    table = shuffled.reshape(num_rows, num_pages_a_row).astype(np.int32)
    num_slots = num_pages_a_row * page_size
    shape = (num_rows, num_kv_heads, num_slots, head_dim)
    key, value = (random.normal(size=shape).astype(dtype) for _ in range(2))
    query_shape = (num_rows, num_heads, num_queries, head_dim)
    query = random.normal(size=query_shape).astype(dtype)

    positions = np.arange(num_slots, dtype=np.int32)
    positions = np.where(positions < np.array(lengths)[:, None], positions, -1)
    pages = full_of_nan(
        init_pages(num_pages, page_size, num_kv_heads, head_dim, page_dtype or dtype)
    )
    pages = jax.jit(write_pages)(pages, jnp.asarray(table), jnp.asarray(positions), key, value)
    unused = np.arange(num_pages_a_row) * page_size >= np.array(lengths)[:, None]
    garbage = np.resize(np.array([0, -1, 10**9, num_pages], np.int32), table.shape)
    table = np.where(unused, garbage, table)
    return query, pages, jnp.asarray(table), jnp.asarray(lengths, jnp.int32), key, value


def full_of_nan(pages: KVPages) -> KVPages:
    """What pages would hold at worst: NaN, or numbers with a scale of NaN."""
    if pages.scales is None:
        return KVPages(jnp.full_like(pages.pages, jnp.nan), None)
    fill = 77 if jnp.issubdtype(pages.pages.dtype, jnp.integer) else jnp.nan
    return KVPages(jnp.full_like(pages.pages, fill), jnp.full_like(pages.scales, jnp.nan))


def contiguous_attention(query, key, value, lengths, *, scale):
    """The oracle's oracle: attention in float32 over keys and values in one piece."""
    num_queries = query.shape[2]
    ends = lengths[:, None] - num_queries + 1 + jnp.arange(num_queries, dtype=jnp.int32)
    mask = IntervalMask(jnp.zeros_like(ends), ends)
    query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    return attention_reference.attention(query, key, value, mask, scale=scale)
