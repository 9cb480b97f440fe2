"""Keys or values in 8 bits: what a KV cache holds when it is to be half as large.

Each vector of H numbers, one token's of one head, has a scale of its own, taken when it is written:
tokens come one at a time, and what is in the cache is never rounded again. A scale is a constant of
its key's column of scores, and of its value's row in the sum over values, so attention multiplies
scores and weights with scales, and no vector.
"""

import dataclasses

import jax
import jax.numpy as jnp

from llama_jax.quantization.number_formats import quantize_rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedVectors:
    """`values * scales[..., None]`.

    Attributes:
      values: int8 or float8_e4m3fn `[B, K, S, H]`.
      scales: float32 `[B, K, S]`.
    """

    values: jax.Array
    scales: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> jnp.dtype:
        return self.values.dtype

    def dequantize(self, dtype: jnp.dtype) -> jax.Array:
        """`[B, K, S, H]` in `dtype`, multiplied in float32."""
        return (self.values.astype(jnp.float32) * self.scales[..., None]).astype(dtype)


def quantize_vectors(x: jax.Array, dtype: jnp.dtype) -> QuantizedVectors:
    """`x` `[B, K, S, H]` with a scale a vector, by its largest magnitude."""
    return QuantizedVectors(*quantize_rows(x, dtype))
