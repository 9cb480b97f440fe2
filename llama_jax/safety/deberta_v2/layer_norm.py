"""Layer normalisation (arXiv 1607.06450)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.safety.deberta_v2.parameter import bias, scale


class LayerNorm(nn.Module):
    """`(x - mean(x)) / sqrt(var(x) + eps) * scale + bias` over the last dimension, in float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., D]`, same dtype."""
        gain = self.param("scale", scale, (x.shape[-1],))
        shift = self.param("bias", bias, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normalised = centred * jax.lax.rsqrt(variance + self.eps)
        return (normalised * gain + shift).astype(x.dtype)
