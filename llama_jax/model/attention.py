"""Grouped-query self-attention with rotary positions.

Letters: B batch, T query, D model, N query heads, K key and value heads, H head dim.
"""

import flax.linen as nn
import jax

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.operators import Operators
from llama_jax.model.axes import (
    ACTIVATION_HEADS,
    ACTIVATION_KV_HEADS,
    BATCH,
    EMBED,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    SEQUENCE,
)
from llama_jax.model.constraint import constrain
from llama_jax.model.kv_cache import LayerCache
from llama_jax.model.paged_cache import PagedLayerCache
from llama_jax.model.parameter import normal, residual_normal
from llama_jax.model.remat import ATTENTION_PROJECTION, KEY, QUERY, VALUE, name_value
from llama_jax.model.rope import apply_rope


class Attention(nn.Module):
    config: ModelConfig
    operators: Operators

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        mask: IntervalMask | None,
        cache: LayerCache | PagedLayerCache | None = None,
    ) -> tuple[jax.Array, LayerCache | PagedLayerCache | None]:
        """Attends within `x`, or over the cache extended by `x`.

        Args:
          x: `[B, T, D]`.
          angles: cosine and sine, each `[B, T, H/2]`.
          mask: over T keys, or over the cache's S slots; None with pages, whose rows say it.

        Returns:
          `[B, T, D]` and the extended cache.
        """
        config, matmul = self.config, self.operators.matmul
        D, N, K, H = config.model_dim, config.num_heads, config.num_kv_heads, config.head_dim
        query_weight = self.param("query", normal(HEADS, HEAD_DIM, EMBED), (N, H, D))
        key_weight = self.param("key", normal(KV_HEADS, HEAD_DIM, EMBED), (K, H, D))
        value_weight = self.param("value", normal(KV_HEADS, HEAD_DIM, EMBED), (K, H, D))
        output_weight = self.param(
            "output", residual_normal(config, EMBED, HEADS, HEAD_DIM), (D, N, H)
        )

        query = _heads_first(matmul(x, query_weight), ACTIVATION_HEADS)  # [B, N, T, H]
        key = _heads_first(matmul(x, key_weight), ACTIVATION_KV_HEADS)  # [B, K, T, H]
        value = _heads_first(matmul(x, value_weight), ACTIVATION_KV_HEADS)
        query = name_value(apply_rope(query, *angles), QUERY)
        key = name_value(apply_rope(key, *angles), KEY)
        value = name_value(value, VALUE)
        if cache is None:
            output = self.operators.attention(query, key, value, mask, scale=H**-0.5)
        else:
            output, cache = cache.attend(self.operators, query, key, value, mask, scale=H**-0.5)
        output = constrain(output, BATCH, ACTIVATION_HEADS, SEQUENCE, HEAD_DIM)
        output = output.swapaxes(1, 2)  # [B, T, N, H]
        projected = matmul(output, output_weight, contracted=2)
        return name_value(projected, ATTENTION_PROJECTION), cache


def _heads_first(x: jax.Array, heads: str) -> jax.Array:
    """`[B, T, heads, H]` -> `[B, heads, T, H]`."""
    return constrain(x.swapaxes(1, 2), BATCH, heads, SEQUENCE, HEAD_DIM)
