"""Attention in plain jnp, block by block: O(T) memory, and masked blocks are never computed.

Flash attention's online softmax (arXiv 2205.14135) with XLA doing each block: for every block of
queries a loop runs over the blocks of keys that some of its intervals touch, and keeps the running
maximum, the running sum and the unnormalised output. A causal prompt costs half of the reference;
an almost empty cache costs what it holds and not what it could hold.

The number of key blocks is known only when it runs, so JAX cannot differentiate the loop; the
gradient is written out in `chunked_backward.py`. Like every function with its own gradient it has
no forward mode (`jax.jvp`), and in `jax.shard_map` it wants `check_vma=False`. Letters as in
`reference.py`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llama_jax.kernels.attention.blocks import block_of, pad_to_blocks, seen_key_blocks, visible
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.chunked_backward import Saved, backward
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.quantized_vectors import QuantizedVectors
from llama_jax.kernels.attention.reference import MASKED
from llama_jax.kernels.attention.saved import ATTENTION

# Scores of one block, `[B, N, 128, 128]` float32, stay in a CPU's second-level cache for small B;
# of 128, 256 and 512 this was the fastest there.
BLOCK = 128
# An accelerator wants products that fill its matrix units and few turns of the loop, each of which
# a GPU's host has to start.
ACCELERATOR_BLOCK = 512


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can. Plain jnp takes everything."""
    return None


def options(case: AttentionCase) -> dict[str, int]:
    """Keywords of `attention` that suit the platform."""
    return {"block": BLOCK if case.platform == "cpu" else ACCELERATOR_BLOCK}


def attention(
    query: jax.Array,
    key: jax.Array | QuantizedVectors,
    value: jax.Array | QuantizedVectors,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
    block: int = BLOCK,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Same contract as `reference.attention`.

    Args:
      block: queries, and keys, at once; `BLOCK` for a CPU, `ACCELERATOR_BLOCK` for the others.
    """
    # All of them once, and not a block at a time for each block of queries.
    key, value = (
        x.dequantize(query.dtype) if isinstance(x, QuantizedVectors) else x for x in (key, value)
    )
    output, log_total = _attention(query, key, value, mask, scale, block)
    if not return_lse:
        return output
    empty = mask.key_end <= mask.key_start
    return output, jnp.where(empty[:, None], MASKED, log_total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(query, key, value, mask, scale, block):
    return _attend(query, key, value, mask, scale, block)


def _forward(query, key, value, mask, scale, block):
    output, log_total = _attend(query, key, value, mask, scale, block)
    # Whoever keeps both computes nothing of attention twice (`model/remat.py`).
    output = checkpoint_name(output, ATTENTION)
    log_total = checkpoint_name(log_total, ATTENTION)
    return (output, log_total), Saved(query, key, value, mask, output, log_total)


def _backward(scale, block, saved, gradients):
    return *backward(saved, *gradients, scale=scale, block=block), None


_attention.defvjp(_forward, _backward)


def _attend(query, key, value, mask, scale, block) -> tuple[jax.Array, jax.Array]:
    """The output `[B, N, T, H]`, and the log-sum-exp of the scores, float32 `[B, N, T]`."""
    B, N, T, H = query.shape
    K = key.shape[1]
    # The padding's intervals are empty, and no interval reaches the keys' padding.
    query, key, value = (pad_to_blocks(x, block, dim=2) for x in (query, key, value))
    intervals = (mask.key_start, mask.key_end)
    key_start, key_end = (pad_to_blocks(x, block, dim=1) for x in intervals)
    num_blocks = query.shape[2] // block
    blocks = query.reshape(B, K, N // K, num_blocks, block, H)

    def attend(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _attend_block(
            jax.lax.dynamic_index_in_dim(blocks, index, axis=3, keepdims=False),
            key,
            value,
            block_of(key_start, index, block, dim=1),
            block_of(key_end, index, block, dim=1),
            scale,
        )

    output, log_total = jax.lax.map(attend, jnp.arange(num_blocks))  # [blocks, B, K, G, block, H]
    output = jnp.moveaxis(output, 0, 3).reshape(B, N, num_blocks * block, H)
    log_total = jnp.moveaxis(log_total, 0, 3).reshape(B, N, num_blocks * block)
    return output[:, :, :T].astype(query.dtype), log_total[:, :, :T]


def _attend_block(query, key, value, key_start, key_end, scale) -> tuple[jax.Array, jax.Array]:
    """One block of queries `[B, K, G, block, H]` over all the keys that it sees; float32."""
    block = query.shape[3]

    def add_key_block(index, state):
        running_max, total, output = state
        keys, values = (block_of(x, index, block, dim=2) for x in (key, value))
        scores = jnp.einsum("BKGTH,BKSH->BKGTS", query, keys, preferred_element_type=jnp.float32)
        seen = visible(key_start, key_end, index, block)
        scores = jnp.where(seen, scale * scores, MASKED)
        new_max = jnp.maximum(running_max, jnp.max(scores, axis=-1))
        weights = jnp.where(seen, jnp.exp(scores - new_max[..., None]), 0.0)
        shrink = jnp.exp(running_max - new_max)
        product = jnp.einsum(
            "BKGTS,BKSH->BKGTH",
            weights.astype(value.dtype),
            values,
            preferred_element_type=jnp.float32,
        )
        total = total * shrink + jnp.sum(weights, axis=-1)
        return new_max, total, output * shrink[..., None] + product

    first, last = seen_key_blocks(key_start, key_end, key.shape[2], block)
    zeros = jnp.zeros(query.shape[:-1], jnp.float32)
    state = (zeros + MASKED, zeros, jnp.zeros(query.shape, jnp.float32))
    largest, total, output = jax.lax.fori_loop(first, last, add_key_block, state)
    # A row that sees nothing: its output is 0, and weights relative to 0 are exp(MASKED) = 0.
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    return output / total[..., None], jnp.where(empty, 0.0, largest + jnp.log(total))
