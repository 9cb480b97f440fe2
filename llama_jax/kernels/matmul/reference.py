"""The matrix product of every linear layer, in plain jnp. The oracle of the faster ones."""

import math

import jax
import jax.numpy as jnp


def matmul(x: jax.Array, weight: jax.Array, *, contracted: int = 1) -> jax.Array:
    """Contracts the last dimensions of `x` with the last dimensions of `weight`.

    Weights are `[out..., in...]` throughout, so a query projection `[N, H, D]` takes `[B, T, D]` to
    `[B, T, N, H]`, and an output projection `[D, N, H]` with `contracted=2` takes it back.

    Args:
      x: `[..., in...]`.
      weight: `[out..., in...]`.
      contracted: how many trailing dimensions are summed over.

    Returns:
      `[..., out...]` in the dtype of `x`, accumulated in float32.
    """
    # One two-dimensional product: with the dimensions left apart, XLA transposes weights on CPU.
    inputs = math.prod(weight.shape[weight.ndim - contracted :])
    rows = x.reshape(-1, inputs)
    columns = weight.reshape(-1, inputs)
    product = jax.lax.dot_general(
        rows, columns, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    shape = x.shape[: x.ndim - contracted] + weight.shape[: weight.ndim - contracted]
    return product.astype(x.dtype).reshape(shape)
