"""What an implementation of paged attention is asked to do, as far as it is known while tracing."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llama_jax.kernels.paged_attention.pages import KVPages


@dataclass(frozen=True)
class PagedAttentionCase:
    """Attributes:
    platform: of the devices: `cpu`, `gpu`, `tpu`.
    device_kind: as JAX names it, such as `NVIDIA H100 80GB HBM3`.
    dtype: of the query.
    page_dtype: of the pages.
    num_heads, num_kv_heads, head_dim: N, K, H.
    num_queries: query tokens a row, Q.
    page_size: tokens a page.
    """

    platform: str
    device_kind: str
    dtype: jnp.dtype
    page_dtype: jnp.dtype
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_queries: int
    page_size: int


def case_of(
    query: jax.Array, pages: KVPages, *, platform: str, device_kind: str
) -> PagedAttentionCase:
    """The case of these arguments of `paged_attention`, on devices of `platform`."""
    _, num_heads, num_queries, head_dim = query.shape
    return PagedAttentionCase(
        platform=platform,
        device_kind=device_kind,
        dtype=jnp.dtype(query.dtype),
        page_dtype=jnp.dtype(pages.pages.dtype),
        num_heads=num_heads,
        num_kv_heads=pages.num_kv_heads,
        head_dim=head_dim,
        num_queries=num_queries,
        page_size=pages.page_size,
    )
