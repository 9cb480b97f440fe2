"""One decoder block: attention, then feed-forward, each normalised before and added after."""

import flax.linen as nn
import jax

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.operators import Operators
from llama_jax.model.attention import Attention
from llama_jax.model.axes import ACTIVATION_EMBED, BATCH, RESIDUAL_SEQUENCE
from llama_jax.model.constraint import constrain
from llama_jax.model.feed_forward import FeedForward
from llama_jax.model.kv_cache import LayerCache
from llama_jax.model.paged_cache import PagedLayerCache
from llama_jax.model.rms_norm import RMSNorm


class Block(nn.Module):
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
        """`[B, T, D]` -> `[B, T, D]` and the extended cache: carry and output for `nn.scan`."""
        config = self.config
        with jax.named_scope("attention"):
            normalised = RMSNorm(config.norm_eps, name="attention_norm")(x)
            attended, cache = Attention(config, self.operators, name="attention")(
                normalised, angles, mask, cache
            )
            x = constrain(x + attended, BATCH, RESIDUAL_SEQUENCE, ACTIVATION_EMBED)
        with jax.named_scope("feed_forward"):
            normalised = RMSNorm(config.norm_eps, name="feed_forward_norm")(x)
            x = x + FeedForward(config, self.operators, name="feed_forward")(normalised)
        return constrain(x, BATCH, RESIDUAL_SEQUENCE, ACTIVATION_EMBED), cache
