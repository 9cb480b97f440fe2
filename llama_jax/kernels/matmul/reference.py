"""The matrix product of every linear layer, in plain jnp. The oracle of the faster ones."""

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
    x_dims = tuple(range(x.ndim - contracted, x.ndim))
    weight_dims = tuple(range(weight.ndim - contracted, weight.ndim))
    product = jax.lax.dot_general(
        x, weight, ((x_dims, weight_dims), ((), ())), preferred_element_type=jnp.float32
    )
    return product.astype(x.dtype)
