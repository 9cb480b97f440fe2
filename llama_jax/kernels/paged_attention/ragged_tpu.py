"""Paged attention on TPU: JAX's ragged paged attention, behind our signature.

`jax.experimental.pallas.ops.tpu.ragged_paged_attention` copies whole pages of all heads ahead of
the products and walks rows of any length. It knows one constant scale for all keys and one for all
values: pages with scales per token are refused. A row without tokens would break its chain of
copies, so such a row is given one token of some page and its output is cleared.
"""

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention.case import PagedAttentionCase, case_of
from llama_jax.kernels.paged_attention.pages import KVPages

# Two buffers of keys and values of this size, and the scores of `_QUERY_BLOCK` tokens of 64 heads
# with what they hold, fit into the 16 MiB of a kernel: compiled for v5p, which at 4 MiB refuses.
_BLOCK_BYTES = 2 * 2**20
# Query tokens at once, as JAX's default.
_QUERY_BLOCK = 32
# Its strided loads know no other.
_HEAD_DIM = 128


def refusal(case: PagedAttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    if case.platform != "tpu":
        return f"runs on TPUs, not on {case.platform}"
    if case.dtype not in (jnp.bfloat16, jnp.float32):
        return f"takes bfloat16 and float32 queries, not {case.dtype}"
    if case.page_dtype != case.dtype:
        return f"takes pages of the query's {case.dtype} and no scales, not {case.page_dtype}"
    if case.head_dim != _HEAD_DIM:
        return f"takes heads of {_HEAD_DIM}, not of {case.head_dim}"
    # A vector register holds 8 x 128 words of 32 bits.
    words, rest = divmod(2 * case.num_kv_heads * case.page_dtype.itemsize, 4)
    if rest or (words not in (1, 2, 4) and words % 8):
        return f"takes 1, 2, 4 or a multiple of 8 key heads, not {case.num_kv_heads}"
    return None


def paged_attention(
    query: jax.Array,
    pages: KVPages,
    page_table: jax.Array,
    lengths: jax.Array,
    *,
    scale: float,
) -> jax.Array:
    """Same contract as `reference.paged_attention`.

    Raises:
      InputError: what `refusal` says.
    """
    case = case_of(query, pages, platform="tpu", device_kind="TPU")
    if reason := refusal(case):
        raise InputError(f"paged attention ragged_tpu: {reason}")
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    B, N, Q, H = query.shape
    # The kernel fetches the first page of every row, and nothing behind a row's length.
    starts = jnp.arange(page_table.shape[1], dtype=jnp.int32) * pages.page_size
    page_table = jnp.where(starts < lengths[:, None], page_table, 0)
    page_bytes = pages.pages[0].size * case.page_dtype.itemsize
    output = ragged_paged_attention(
        query.swapaxes(1, 2).reshape(B * Q, N, H),
        pages.pages,
        jnp.maximum(lengths, 1),
        page_table,
        jnp.arange(B + 1, dtype=jnp.int32) * Q,
        jnp.array([B], jnp.int32),
        sm_scale=scale,
        # Given, because JAX would look them up by the device of this process.
        num_kv_pages_per_block=max(1, min(page_table.shape[1], _BLOCK_BYTES // page_bytes)),
        num_queries_per_block=min(B * Q, _QUERY_BLOCK),
    )
    output = output.reshape(B, Q, N, H).swapaxes(1, 2)
    positions = lengths[:, None] - Q + jnp.arange(Q, dtype=jnp.int32)  # [B, Q]
    return jnp.where((positions >= 0)[:, None, :, None], output, 0)
