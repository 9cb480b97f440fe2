"""Which ids a row may choose, one bit an id: bit i of word w is id 32 w + i.

A grammar (`infer/constraints`), a list of allowed ids and the end-of-text ids before the least
length all say it this way. Packed, the mask of 128,256 ids is 16 KB, which the host can send anew
for every token.

B rows, V vocabulary, W = ceil(V / 32) words, E ids.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

WORD_BITS = 32


def num_words(vocab_size: int) -> int:
    """W."""
    return -(-vocab_size // WORD_BITS)


def full_mask(vocab_size: int) -> np.ndarray:
    """uint32 `[W]` that allows every id."""
    return np.full(num_words(vocab_size), 0xFFFFFFFF, np.uint32)


def mask_of(allowed_ids: Iterable[int], vocab_size: int) -> np.ndarray:
    """uint32 `[W]` that allows these ids; those at or over `vocab_size` cannot be allowed."""
    allowed = np.zeros(num_words(vocab_size) * WORD_BITS, np.uint8)
    allowed[[token for token in allowed_ids if token < vocab_size]] = 1
    return np.packbits(allowed, bitorder="little").view("<u4").astype(np.uint32)


def masked(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """float32 `[B, V]`, `-inf` where uint32 `[B, W]` has a zero."""
    shifts = jnp.arange(WORD_BITS, dtype=jnp.uint32)
    bits = (mask[:, :, None] >> shifts) & 1
    allowed = bits.reshape(mask.shape[0], -1)[:, : logits.shape[1]]
    return jnp.where(allowed == 1, logits, -jnp.inf)


def without(logits: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
    """float32 `[B, V]`, `-inf` at int32 `[B, E]` (-1 for none) in the rows of bool `[B]`."""
    # A negative index would count from the end; one past the end is dropped.
    ids = jnp.where(rows[:, None] & (ids >= 0), ids, logits.shape[1])
    return logits.at[jnp.arange(logits.shape[0])[:, None], ids].set(-jnp.inf, mode="drop")
