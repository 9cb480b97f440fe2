"""Attention in plain jnp: short, exact about the mask, O(T * S) memory. The oracle of all kernels.

Scores and softmax are float32 whatever the inputs are: bfloat16 has 8 bits of mantissa, and a sum
of thousands of exponentials in it stops growing. Heads come before positions, so that no product
needs a transposed copy of the keys. Letters: B batch, T query, S key, N query heads,
K key and value heads, G = N / K query heads per key head, H head dim.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.quantized_vectors import QuantizedVectors

# Less than any real score and finite, so that no difference of two is NaN.
MASKED = -1e30


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can. Plain jnp takes everything."""
    return None


def attention(
    query: jax.Array,
    key: jax.Array | QuantizedVectors,
    value: jax.Array | QuantizedVectors,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Grouped-query attention over an interval of keys.

    Args:
      query: `[B, N, T, H]`.
      key, value: `[B, K, S, H]`, K divides N; query head n reads key head `n // (N / K)`. Both may
        be quantised: then there is no gradient.
      mask: intervals over the S keys, `[B, T]`.
      scale: multiplies the scores, usually `H ** -0.5`.
      return_lse: returns the log-sum-exp of each row of scaled scores too, by which outputs over
        disjoint intervals of keys can be combined.

    Returns:
      `[B, N, T, H]` in the dtype of `query`; zeros where a query's interval is empty. With
      `return_lse` a pair of that and float32 `[B, N, T]`; `MASKED` where an interval is empty.
    """
    B, N, T, H = query.shape
    K, S = key.shape[1:3]
    grouped = query.reshape(B, K, N // K, T, H)
    key, key_scales = _values_and_scales(key, query.dtype)
    value, value_scales = _values_and_scales(value, query.dtype)
    scores = jnp.einsum("BKGTH,BKSH->BKGTS", grouped, key, preferred_element_type=jnp.float32)
    if key_scales is not None:
        scores = scores * key_scales
    slots = jnp.arange(S, dtype=jnp.int32)
    visible = (slots >= mask.key_start[..., None]) & (slots < mask.key_end[..., None])  # [B, T, S]
    visible = visible[:, None, None]
    scores = jnp.where(visible, scale * scores, MASKED)
    # A constant: the result does not depend on it, and neither may the gradient.
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    # In an empty row every score is MASKED, and every weight would be 1.
    weights = jnp.where(visible, weights, 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if value_scales is not None:
        weights = weights * value_scales
    # Divided after the product, as flash attention does: H numbers a row and not S.
    output = jnp.einsum(
        "BKGTS,BKSH->BKGTH", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    output = (output / total).reshape(B, N, T, H).astype(query.dtype)
    if not return_lse:
        return output
    lse = jnp.where(empty, MASKED, largest + jnp.log(total))
    return output, lse.reshape(B, N, T)


def _values_and_scales(x, dtype) -> tuple[jax.Array, jax.Array | None]:
    """Vectors `[B, K, S, H]`, 8-bit ones in `dtype`, which holds each exactly, and their scales
    along a row of scores `[B, K, 1, 1, S]`."""
    if not isinstance(x, QuantizedVectors):
        return x, None
    return x.values.astype(dtype), x.scales[:, :, None, None]
