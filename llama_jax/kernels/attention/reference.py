"""Attention in plain jnp: short, exact about the mask, O(T * S) memory. The oracle of all kernels.

Scores and softmax are float32 whatever the inputs are: bfloat16 has 8 bits of mantissa, and a sum
of thousands of exponentials in it stops growing. Letters: B batch, T query, S key, N query heads,
K key and value heads, G = N / K query heads per key head, H head dim.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.mask import IntervalMask


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: IntervalMask, *, scale: float
) -> jax.Array:
    """Grouped-query attention over an interval of keys.

    Args:
      query: `[B, T, N, H]`.
      key, value: `[B, S, K, H]`, K divides N; query head n reads key head `n // (N / K)`.
      mask: intervals over the S keys, `[B, T]`.
      scale: multiplies the scores, usually `H ** -0.5`.

    Returns:
      `[B, T, N, H]` in the dtype of `query`; zeros where a query's interval is empty.
    """
    B, T, N, H = query.shape
    S, K = key.shape[1:3]
    grouped = query.reshape(B, T, K, N // K, H)
    scores = scale * jnp.einsum(
        "BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=jnp.float32
    )
    slots = jnp.arange(S, dtype=jnp.int32)
    visible = (slots >= mask.key_start[..., None]) & (slots < mask.key_end[..., None])  # [B, T, S]
    visible = visible[:, None, None]
    # The row maximum is over visible scores only; an empty row has none, hence the initial value.
    row_max = jnp.max(scores, axis=-1, keepdims=True, where=visible, initial=-1e30)
    weights = jnp.where(visible, jnp.exp(jnp.where(visible, scores - row_max, 0.0)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    probabilities = weights / jnp.where(total == 0.0, 1.0, total)
    output = jnp.einsum(
        "BKGTS,BSKH->BTKGH",
        probabilities.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    return output.reshape(B, T, N, H).astype(query.dtype)
