"""Keys or values in 8 bits: what a KV cache holds when it is to be half as large.

Each vector of H numbers, one token's of one head, has a scale of its own, taken when it is written:
tokens come one at a time, and what is in the cache is never rounded again. A scale is a constant of
its key's column of scores, and of its value's row in the sum over values, so attention multiplies
scores and weights with scales, and no vector.
"""

import dataclasses

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.quantization.number_formats import E4M3, INT8, quantize_rows

QUANTIZED_DTYPES = (INT8, E4M3)


def check_cache_dtype(dtype: jnp.dtype) -> None:
    """Raises `InputError` if keys and values of a cache cannot be of `dtype`."""
    dtype = jnp.dtype(dtype)
    is_plain = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1
    if not is_plain and dtype not in QUANTIZED_DTYPES:
        raise InputError(
            "a cache of keys and values is of float32, bfloat16, float16, int8 or float8_e4m3fn, "
            f"not {dtype}"
        )


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
