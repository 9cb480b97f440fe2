"""Keys and values of the tokens so far: one array per layer, allocated once, updated in place.

One array per layer and not one for all: a stacked cache carried through `lax.scan` is copied every
step. Rows are left-padded to a common length, so every row writes the same slots and an update is
one contiguous `dynamic_update_slice`; `first` says where each row's real tokens begin.

A cache of int8 or float8_e4m3fn takes half the bytes of bfloat16, and a scale for each vector: its
keys and values are `QuantizedVectors`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.quantized_vectors import (
    QUANTIZED_DTYPES,
    QuantizedVectors,
    check_cache_dtype,
    quantize_vectors,
)
from llama_jax.kernels.operators import Operators

Vectors = jax.Array | QuantizedVectors


class LayerCache(NamedTuple):
    """Keys and values of one layer, `[B, K, S, H]`; `length` (int32 scalar) slots are filled."""

    keys: Vectors
    values: Vectors
    length: jax.Array

    def extend(self, keys: jax.Array, values: jax.Array) -> "LayerCache":
        """Writes `[B, K, T, H]` into the next T slots; `length` stays for the caller to advance."""
        return self._replace(
            keys=_written(self.keys, keys, self.length),
            values=_written(self.values, values, self.length),
        )

    def attend(
        self,
        operators: Operators,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: IntervalMask,
        *,
        scale: float,
    ) -> tuple[jax.Array, "LayerCache"]:
        """Attention of T new tokens over the cache, themselves included, and the cache with them:
        `[B, N, T, H]`, `[B, K, T, H]` -> `[B, N, T, H]`; `mask` is over the S slots."""
        extended = self.extend(key, value)
        output = operators.attention(query, extended.keys, extended.values, mask, scale=scale)
        return output, extended


def _written(cache: Vectors, new: jax.Array, slot: jax.Array) -> Vectors:
    """`cache` `[B, K, S, H]` with `new` `[B, K, T, H]` from `slot` on."""
    if isinstance(cache, QuantizedVectors):
        new = quantize_vectors(new, cache.dtype)
    else:
        new = new.astype(cache.dtype)
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=2), cache, new
    )


class KVCache(NamedTuple):
    """The cache of a whole model. Donate it to the jitted function that extends it.

    Attributes:
      keys, values: tuples of L arrays, or `QuantizedVectors`, `[B, K, S, H]`.
      first: int32 `[B]`, padding slots at the left of each row.
      length: int32 scalar, slots filled so far, padding included; the same for all rows.
    """

    keys: tuple[Vectors, ...]
    values: tuple[Vectors, ...]
    first: jax.Array
    length: jax.Array

    def layer(self, index: int) -> LayerCache:
        return LayerCache(self.keys[index], self.values[index], self.length)


def init_cache(config: ModelConfig, batch_size: int, num_slots: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache with room for `num_slots` tokens a row, no padding.

    Args:
      dtype: of keys and values; int8 and float8_e4m3fn make a quantised cache.

    Raises `InputError` for a dtype that a cache cannot have.
    """
    check_cache_dtype(dtype)
    shape = (batch_size, config.num_kv_heads, num_slots, config.head_dim)
    return KVCache(
        keys=tuple(_empty(shape, dtype) for _ in range(config.num_layers)),
        values=tuple(_empty(shape, dtype) for _ in range(config.num_layers)),
        first=jnp.zeros(batch_size, jnp.int32),
        length=jnp.zeros((), jnp.int32),
    )


def _empty(shape: tuple[int, ...], dtype: jnp.dtype) -> Vectors:
    zeros = jnp.zeros(shape, dtype)
    if jnp.dtype(dtype) not in QUANTIZED_DTYPES:
        return zeros
    return QuantizedVectors(zeros, jnp.zeros(shape[:-1], jnp.float32))
