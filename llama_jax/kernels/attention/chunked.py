"""Attention in plain jnp, block by block: O(T) memory, and masked blocks are never computed.

Flash attention's online softmax (arXiv 2205.14135) with XLA doing each block: for every block of
queries a loop runs over the blocks of keys that some of its intervals touch, and keeps the running
maximum, the running sum and the unnormalised output. A causal prompt costs half of the reference;
an almost empty cache costs what it holds and not what it could hold.

The number of key blocks is known only when it runs, so JAX cannot differentiate it in reverse: this
is for prompts, the reference is for training. Letters as in `reference.py`.
"""

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.reference import MASKED

# Scores of one block, `[B, N, 128, 128]` float32, stay in a CPU's second-level cache for small B;
# of 128, 256 and 512 this was the fastest there.
BLOCK = 128


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: IntervalMask, *, scale: float
) -> jax.Array:
    """Same contract as `reference.attention`, forward only."""
    B, N, T, H = query.shape
    K = key.shape[1]
    # The padding's intervals are empty, and no interval reaches the keys' padding.
    query, key, value = _pad(query, dim=2), _pad(key, dim=2), _pad(value, dim=2)
    key_start, key_end = _pad(mask.key_start, dim=1), _pad(mask.key_end, dim=1)
    num_blocks = query.shape[2] // BLOCK
    blocks = query.reshape(B, K, N // K, num_blocks, BLOCK, H)

    def attend(block: jax.Array) -> jax.Array:
        at = block * BLOCK
        return _attend_block(
            jax.lax.dynamic_index_in_dim(blocks, block, axis=3, keepdims=False),
            key,
            value,
            jax.lax.dynamic_slice_in_dim(key_start, at, BLOCK, axis=1),
            jax.lax.dynamic_slice_in_dim(key_end, at, BLOCK, axis=1),
            scale,
        )

    output = jax.lax.map(attend, jnp.arange(num_blocks))  # [blocks, B, K, G, BLOCK, H]
    output = jnp.moveaxis(output, 0, 3).reshape(B, N, num_blocks * BLOCK, H)
    return output[:, :, :T].astype(query.dtype)


def _attend_block(query, key, value, key_start, key_end, scale) -> jax.Array:
    """One block of queries `[B, K, G, BLOCK, H]` over all the keys that it sees; float32."""

    def add_key_block(block, state):
        running_max, total, output = state
        at = block * BLOCK
        keys = jax.lax.dynamic_slice_in_dim(key, at, BLOCK, axis=2)
        values = jax.lax.dynamic_slice_in_dim(value, at, BLOCK, axis=2)
        scores = jnp.einsum("BKGTH,BKSH->BKGTS", query, keys, preferred_element_type=jnp.float32)
        slots = at + jnp.arange(BLOCK, dtype=jnp.int32)
        visible = (slots >= key_start[..., None]) & (slots < key_end[..., None])  # [B, T, S]
        visible = visible[:, None, None]
        scores = jnp.where(visible, scale * scores, MASKED)
        new_max = jnp.maximum(running_max, jnp.max(scores, axis=-1))
        weights = jnp.where(visible, jnp.exp(scores - new_max[..., None]), 0.0)
        shrink = jnp.exp(running_max - new_max)
        product = jnp.einsum(
            "BKGTS,BKSH->BKGTH",
            weights.astype(value.dtype),
            values,
            preferred_element_type=jnp.float32,
        )
        total = total * shrink + jnp.sum(weights, axis=-1)
        return new_max, total, output * shrink[..., None] + product

    seen = key_end > key_start
    first = jnp.min(jnp.where(seen, key_start, key.shape[2])) // BLOCK
    last = -(-jnp.max(jnp.where(seen, key_end, 0)) // BLOCK)
    zeros = jnp.zeros(query.shape[:-1], jnp.float32)
    state = (zeros + MASKED, zeros, jnp.zeros(query.shape, jnp.float32))
    _, total, output = jax.lax.fori_loop(first, last, add_key_block, state)
    return output / jnp.where(total == 0.0, 1.0, total)[..., None]


def _pad(x: jax.Array, *, dim: int) -> jax.Array:
    """`x` with zeros after it, up to whole blocks along `dim`."""
    padding = [(0, 0)] * x.ndim
    padding[dim] = (0, -x.shape[dim] % BLOCK)
    return jnp.pad(x, padding)
