"""Random numbers that are a counter: a row's noise depends on its seed and on the position it
fills, and on nothing else, so the same row draws the same in any batch and after any restart."""

from functools import partial

import jax


def gumbel_noise(seeds: jax.Array, positions: jax.Array, *, size: int) -> jax.Array:
    """Gumbel noise, float32 `[B, size]`, of seeds uint32 `[B]` and positions int32 `[B]`."""
    return jax.vmap(partial(_gumbel_row, size=size))(seeds, positions)


def _gumbel_row(seed: jax.Array, position: jax.Array, *, size: int) -> jax.Array:
    return jax.random.gumbel(jax.random.fold_in(jax.random.key(seed), position), (size,))
