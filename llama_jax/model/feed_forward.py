"""SwiGLU feed-forward (arXiv 2002.05202): `down(silu(gate(x)) * up(x))`, no biases."""

import flax.linen as nn
import jax

from llama_jax.config import ModelConfig
from llama_jax.kernels.operators import Operators
from llama_jax.model.axes import ACTIVATION_FEED_FORWARD, BATCH, EMBED, FEED_FORWARD, SEQUENCE
from llama_jax.model.constraint import constrain
from llama_jax.model.parameter import normal, residual_normal
from llama_jax.model.remat import GATE, UP, name_value


class FeedForward(nn.Module):
    config: ModelConfig
    operators: Operators

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, D]` -> `[B, T, D]`."""
        config, matmul = self.config, self.operators.matmul
        D, F = config.model_dim, config.feed_forward_dim
        gate_weight = self.param("gate", normal(FEED_FORWARD, EMBED), (F, D))
        up_weight = self.param("up", normal(FEED_FORWARD, EMBED), (F, D))
        down_weight = self.param("down", residual_normal(config, EMBED, FEED_FORWARD), (D, F))
        gate = name_value(matmul(x, gate_weight), GATE)
        up = name_value(matmul(x, up_weight), UP)
        hidden = jax.nn.silu(gate) * up
        hidden = constrain(hidden, BATCH, SEQUENCE, ACTIVATION_FEED_FORWARD)
        return matmul(hidden, down_weight)
