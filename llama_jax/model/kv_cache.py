"""Keys and values of the tokens so far: one array per layer, allocated once, updated in place.

One array per layer and not one for all: a stacked cache carried through `lax.scan` is copied every
step. Rows are left-padded to a common length, so every row writes the same slots and an update is
one contiguous `dynamic_update_slice`; `first` says where each row's real tokens begin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer, `[B, K, S, H]`; `length` (int32 scalar) slots are filled."""

    keys: jax.Array
    values: jax.Array
    length: jax.Array

    def extend(self, keys: jax.Array, values: jax.Array) -> "LayerCache":
        """Writes `[B, K, T, H]` into the next T slots; `length` stays for the caller to advance."""
        at = (0, 0, self.length, 0)
        return self._replace(
            keys=jax.lax.dynamic_update_slice(self.keys, keys.astype(self.keys.dtype), at),
            values=jax.lax.dynamic_update_slice(self.values, values.astype(self.values.dtype), at),
        )


class KVCache(NamedTuple):
    """The cache of a whole model. Donate it to the jitted function that extends it.

    Attributes:
      keys, values: tuples of L arrays `[B, K, S, H]`.
      first: int32 `[B]`, padding slots at the left of each row.
      length: int32 scalar, slots filled so far, padding included; the same for all rows.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    first: jax.Array
    length: jax.Array

    def layer(self, index: int) -> LayerCache:
        return LayerCache(self.keys[index], self.values[index], self.length)


def init_cache(config: ModelConfig, batch_size: int, num_slots: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache with room for `num_slots` tokens a row, no padding."""
    shape = (batch_size, config.num_kv_heads, num_slots, config.head_dim)
    return KVCache(
        keys=tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers)),
        values=tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers)),
        first=jnp.zeros(batch_size, jnp.int32),
        length=jnp.zeros((), jnp.int32),
    )
