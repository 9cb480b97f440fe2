"""The gradient of `chunked.py`, block by block in the same order: O(T) memory.

Flash attention 2's backward pass (arXiv 2307.08691, algorithm 2). From the log-sum-exp of each row
of scores the weights of a block are computed again, exactly and without a running maximum. With
weights P, output O and the gradient dO of the output,

    dV = P^T dO      dS = P * (dO V^T - rowsum(dO * O)) * scale      dQ = dS K      dK = dS^T Q

where the row sum is what the softmax's denominator contributes. The outer loop runs over blocks of
queries, because a query has G times as many heads as a key: what is read, added to and written back
in the inner loop are the smaller gradients, those of keys and values. All sums are float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.blocks import block_of, pad_to_blocks, seen_key_blocks, visible
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.reference import MASKED


class Saved(NamedTuple):
    """What the backward pass needs of the forward pass.

    Attributes:
      query, key, value, mask: its arguments.
      output: its result `[B, N, T, H]`.
      log_total: log-sum-exp of each row of scaled scores, float32 `[B, N, T]`; 0 in empty rows.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    mask: IntervalMask
    output: jax.Array
    log_total: jax.Array


def backward(
    saved: Saved, gradient: jax.Array, lse_gradient: jax.Array, *, scale: float, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of query, key and value, each in its dtype, from those of output and log-sum-exp.

    Rows whose interval is empty, and keys that no interval holds, have gradients of zero.
    """
    B, N, T, H = saved.query.shape
    K, S = saved.key.shape[1:3]
    row_sum = jnp.sum(gradient.astype(jnp.float32) * saved.output.astype(jnp.float32), axis=-1)
    # The derivative of the log-sum-exp by a score is its weight P, and so joins the row's sum.
    row_sum = row_sum - lse_gradient
    key, value = (pad_to_blocks(x, block, dim=2) for x in (saved.key, saved.value))
    intervals = (saved.mask.key_start, saved.mask.key_end)
    key_start, key_end = (pad_to_blocks(x, block, dim=1) for x in intervals)

    def in_blocks(x: jax.Array) -> jax.Array:
        """`[B, N, T, ...]` -> `[blocks, B, K, G, block, ...]`."""
        x = pad_to_blocks(x, block, dim=2)
        return jnp.moveaxis(x.reshape(B, K, N // K, -1, block, *x.shape[3:]), 3, 0)

    def add_query_block(state, inputs):
        index, query, gradient, log_total, row_sum = inputs
        start, end = (block_of(x, index, block, dim=1) for x in (key_start, key_end))

        def add_key_block(index, state):
            query_gradient, key_gradient, value_gradient = state
            keys, values = (block_of(x, index, block, dim=2) for x in (key, value))
            weights = _product("BKGTH,BKSH->BKGTS", query, keys)
            weights = jnp.where(visible(start, end, index, block), scale * weights, MASKED)
            weights = jnp.exp(weights - log_total[..., None])
            of_values = _product("BKGTS,BKGTH->BKSH", weights.astype(gradient.dtype), gradient)
            of_weights = _product("BKGTH,BKSH->BKGTS", gradient, values)
            of_scores = scale * weights * (of_weights - row_sum[..., None])
            of_scores = of_scores.astype(query.dtype)
            of_keys = _product("BKGTS,BKGTH->BKSH", of_scores, query)
            return (
                query_gradient + _product("BKGTS,BKSH->BKGTH", of_scores, keys),
                _add_block(key_gradient, of_keys, index),
                _add_block(value_gradient, of_values, index),
            )

        first, last = seen_key_blocks(start, end, key.shape[2], block)
        state = (jnp.zeros(query.shape, jnp.float32), *state)
        query_gradient, *state = jax.lax.fori_loop(first, last, add_key_block, state)
        return tuple(state), query_gradient.astype(query.dtype)

    inputs = [in_blocks(x) for x in (saved.query, gradient, saved.log_total, row_sum)]
    state = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    (key_gradient, value_gradient), query_gradient = jax.lax.scan(
        add_query_block, state, (jnp.arange(inputs[0].shape[0]), *inputs)
    )
    query_gradient = jnp.moveaxis(query_gradient, 0, 3).reshape(B, N, -1, H)
    return (
        query_gradient[:, :, :T],
        key_gradient[:, :, :S].astype(key.dtype),
        value_gradient[:, :, :S].astype(value.dtype),
    )


def _product(equation: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _add_block(total: jax.Array, block: jax.Array, index: jax.Array) -> jax.Array:
    """`total` `[B, K, S, H]` with `block` added to its block number `index`."""
    size = block.shape[2]
    block = block_of(total, index, size, dim=2) + block
    return jax.lax.dynamic_update_slice_in_dim(total, block, index * size, axis=2)
