"""Disentangled self-attention (arXiv 2006.03654, section 3.1).

Letters: B batch, T query, S key, D model, N heads, H head dim, P rows of distances.

The score of a query for a key is the sum of up to three products, over the root of their number
times H: the query with the key, the query with the distance's key, and the key with the distance's
query. A distance has few values, so its products are made for each of them and then picked.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.safety.deberta_v2.config import DebertaConfig
from llama_jax.safety.deberta_v2.parameter import bias, weight


class DisentangledAttention(nn.Module):
    config: DebertaConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, distances: jax.Array, rows: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """Attends within `x`.

        Args:
          x: `[B, T, D]`.
          distances: vectors, `[P, D]`.
          rows: int32 `[T, S]`, which of them lies between two tokens.
          mask: bool `[B, S]`, False for padding.

        Returns:
          `[B, T, D]`.
        """
        config = self.config
        D, N, H = config.model_dim, config.num_heads, config.head_dim
        heads = {name: self._heads(name) for name in ("query", "key", "value")}
        query, key, value = (_project(x, *heads[name]) for name in heads)
        num_products = 1 + config.content_to_position + config.position_to_content
        root = (H * num_products) ** 0.5
        scores = jnp.einsum("BTNH,BSNH->BNTS", query, key / root)
        if config.content_to_position:
            own = heads["key"] if config.shares_projections else self._heads("distance_key")
            products = jnp.einsum("BTNH,PNH->BNTP", query, _project(distances, *own))
            scores += jnp.take_along_axis(products, rows[None, None], axis=-1) / root
        if config.position_to_content:
            own = heads["query"] if config.shares_projections else self._heads("distance_query")
            products = jnp.einsum("BSNH,PNH->BNSP", key, _project(distances, *own))
            picked = jnp.take_along_axis(products, rows.T[None, None], axis=-1)
            scores += picked.swapaxes(2, 3) / root
        scores = jnp.where(mask[:, None, None, :], scores.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        attended = jnp.einsum("BNTS,BSNH->BTNH", weights, value)
        output = self.param("output", weight, (D, N, H))
        return jnp.einsum("BTNH,DNH->BTD", attended, output) + self.param("output_bias", bias, (D,))

    def _heads(self, name: str) -> tuple[jax.Array, jax.Array]:
        """Weight `[N, H, D]` and bias `[N, H]`."""
        N, H = self.config.num_heads, self.config.head_dim
        return (
            self.param(name, weight, (N, H, self.config.model_dim)),
            self.param(f"{name}_bias", bias, (N, H)),
        )


def _project(x: jax.Array, heads: jax.Array, shift: jax.Array) -> jax.Array:
    """`[..., D]` -> `[..., N, H]`."""
    return jnp.einsum("...D,NHD->...NH", x, heads) + shift
