"""Root-mean-square normalisation (arXiv 1910.07467), with Meta's order of rounding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.model.axes import EMBED


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * scale` over the last dimension.

    The mean is float32, the quotient is cast to the dtype of `x` and only then multiplied by the
    scale, as Meta's reference does; multiplying first rounds bfloat16 models differently.
    """

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., D]`, same dtype."""
        ones = nn.with_logical_partitioning(lambda _, shape: jnp.ones(shape), (EMBED,))
        scale = self.param("scale", ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * scale.astype(x.dtype)
