"""The encoder and the classifier on its first token, in Flax Linen.

Letters: B batch, T tokens, D model, F feed-forward, P rows of distances, C classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.safety.deberta_v2.attention import DisentangledAttention
from llama_jax.safety.deberta_v2.config import DebertaConfig
from llama_jax.safety.deberta_v2.layer_norm import LayerNorm
from llama_jax.safety.deberta_v2.parameter import bias, weight


class Block(nn.Module):
    config: DebertaConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, distances: jax.Array, rows: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, None]:
        """`[B, T, D]` -> `[B, T, D]`: each part is added, and the sum normalised."""
        config = self.config
        D, F = config.model_dim, config.feed_forward_dim
        with jax.named_scope("attention"):
            attended = DisentangledAttention(config, name="attention")(x, distances, rows, mask)
            x = LayerNorm(config.norm_eps, name="attention_norm")(x + attended)
        with jax.named_scope("feed_forward"):
            up = self.param("up", weight, (F, D)), self.param("up_bias", bias, (F,))
            down = self.param("down", weight, (D, F)), self.param("down_bias", bias, (D,))
            hidden = _gelu(_linear(x, *up))
            x = LayerNorm(config.norm_eps, name="feed_forward_norm")(x + _linear(hidden, *down))
        return x, None


class Classifier(nn.Module):
    config: DebertaConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, rows: jax.Array, mask: jax.Array) -> jax.Array:
        """int `[B, T]`, int32 `[T, T]` and bool `[B, T]` -> float32 `[B, C]`."""
        config = self.config
        D, num_labels = config.model_dim, len(config.labels)
        x = self.param("embedding", weight, (config.vocab_size, D))[tokens]
        if config.has_absolute_positions:
            table = self.param("position_embedding", weight, (config.context_length, D))
            x += table[: tokens.shape[1]]
        if config.num_types:
            x += self.param("type_embedding", weight, (config.num_types, D))[0]
        x = LayerNorm(config.norm_eps, name="embedding_norm")(x)
        x *= mask[..., None].astype(x.dtype)
        distances = self.param("distances", weight, (2 * config.span, D))
        if config.norms_distances:
            distances = LayerNorm(config.norm_eps, name="distances_norm")(distances)
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.num_layers,
        )
        x, _ = blocks(config, name="blocks")(x, distances, rows, mask)
        pooled = x[:, 0]
        pooler = self.param("pooler", weight, (D, D)), self.param("pooler_bias", bias, (D,))
        pooled = _gelu(_linear(pooled, *pooler)).astype(jnp.float32)
        head = self.param("head", weight, (num_labels, D))
        shift = self.param("head_bias", bias, (num_labels,))
        return _linear(pooled, head.astype(jnp.float32), shift.astype(jnp.float32))


def _linear(x: jax.Array, weights: jax.Array, shift: jax.Array) -> jax.Array:
    return jnp.einsum("...I,OI->...O", x, weights) + shift


def _gelu(x: jax.Array) -> jax.Array:
    """With the error function, and not its approximation."""
    return jax.nn.gelu(x, approximate=False)
