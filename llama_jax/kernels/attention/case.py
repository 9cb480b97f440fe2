"""What an implementation of attention is asked to do, as far as it is known while tracing."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.mask import IntervalMask, MaskForm
from llama_jax.kernels.attention.quantized_vectors import QuantizedVectors


@dataclass(frozen=True)
class AttentionCase:
    """Attributes:
    platform: of the devices: `cpu`, `gpu`, `tpu`.
    device_kind: as JAX names it, such as `NVIDIA H100 80GB HBM3`.
    dtype: of query, key and value.
    num_heads, num_kv_heads, head_dim: N, K, H.
    num_queries, num_keys: T, S.
    form: what is known of the mask.
    return_lse: whether the log-sum-exp is wanted too.
    quantized_keys: whether keys and values are `QuantizedVectors`.
    """

    platform: str
    device_kind: str
    dtype: jnp.dtype
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_queries: int
    num_keys: int
    form: MaskForm
    return_lse: bool
    quantized_keys: bool = False


def case_of(
    query: jax.Array,
    key: jax.Array | QuantizedVectors,
    mask: IntervalMask,
    *,
    platform: str,
    device_kind: str,
    return_lse: bool,
) -> AttentionCase:
    """The case of these arguments of `attention`, on devices of `platform`."""
    _, num_heads, num_queries, head_dim = query.shape
    return AttentionCase(
        platform=platform,
        device_kind=device_kind,
        dtype=jnp.dtype(query.dtype),
        num_heads=num_heads,
        num_kv_heads=key.shape[1],
        head_dim=head_dim,
        num_queries=num_queries,
        num_keys=key.shape[2],
        form=mask.form,
        return_lse=return_lse,
        quantized_keys=isinstance(key, QuantizedVectors),
    )
