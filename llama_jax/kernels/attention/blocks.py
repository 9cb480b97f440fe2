"""Sequences cut into blocks, and which blocks an interval mask lets meet."""

import jax
import jax.numpy as jnp


def pad_to_blocks(x: jax.Array, block: int, *, dim: int) -> jax.Array:
    """`x` with zeros after it, up to whole blocks along `dim`."""
    padding = [(0, 0)] * x.ndim
    padding[dim] = (0, -x.shape[dim] % block)
    return jnp.pad(x, padding)


def block_of(x: jax.Array, index: jax.Array, block: int, *, dim: int) -> jax.Array:
    """Block number `index` of `x` along `dim`."""
    return jax.lax.dynamic_slice_in_dim(x, index * block, block, axis=dim)


def seen_key_blocks(
    key_start: jax.Array, key_end: jax.Array, num_keys: int, block: int
) -> tuple[jax.Array, jax.Array]:
    """First block of keys that any of the intervals `[B, T]` touches, and one past the last."""
    seen = key_end > key_start
    first = jnp.min(jnp.where(seen, key_start, num_keys)) // block
    last = -(-jnp.max(jnp.where(seen, key_end, 0)) // block)
    return first, last


def visible(key_start: jax.Array, key_end: jax.Array, index: jax.Array, block: int) -> jax.Array:
    """bool `[B, 1, 1, T, block]`: which keys of block `index` the intervals `[B, T]` hold."""
    slots = index * block + jnp.arange(block, dtype=jnp.int32)
    inside = (slots >= key_start[..., None]) & (slots < key_end[..., None])
    return inside[:, None, None]
