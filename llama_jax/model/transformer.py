"""The decoder: embedding, L blocks under `scan`, final norm. Returns hidden states.

The head is a parameter here and a product elsewhere (`forward.py: logits`): losses, rewards and
last-token logits each want it applied to something else.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.operators import Operators
from llama_jax.model.axes import (
    ACTIVATION_EMBED,
    BATCH,
    EMBED,
    LAYERS,
    RESIDUAL_SEQUENCE,
    VOCAB,
)
from llama_jax.model.block import Block
from llama_jax.model.constraint import constrain
from llama_jax.model.parameter import normal
from llama_jax.model.remat import checkpoint_policy
from llama_jax.model.rms_norm import RMSNorm


class Transformer(nn.Module):
    config: ModelConfig
    operators: Operators
    dtype: jnp.dtype | None = None
    remat: str = "none"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, angles: tuple[jax.Array, jax.Array], mask: IntervalMask
    ) -> jax.Array:
        """int `[B, T]` -> `[B, T, D]` in `dtype`, by default that of the embedding."""
        config = self.config
        vocabulary = (config.vocab_size, config.model_dim)
        embedding = self.param("embedding", normal(VOCAB, EMBED), vocabulary)
        if config.has_head:
            self.param("head", normal(VOCAB, EMBED), vocabulary)
        if config.reward_head:
            self.param("reward_head", normal(EMBED), (config.model_dim,))

        # A device looks up its own tokens in whole vectors. Left to itself the compiler looks up
        # all tokens in its part of each vector, and then moves the activations.
        vectors = constrain(embedding, VOCAB, ACTIVATION_EMBED)
        # Cast after the look-up: the gradient of a frequent token is a sum of thousands.
        x = vectors[tokens].astype(self.dtype or embedding.dtype)
        x = constrain(x, BATCH, RESIDUAL_SEQUENCE, ACTIVATION_EMBED)
        x = self._blocks(x, angles, mask)
        return RMSNorm(config.norm_eps, name="final_norm")(x)

    def _blocks(self, x, angles, mask) -> jax.Array:
        if self.is_initializing():
            scanned = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.config.num_layers,
                metadata_params={nn.PARTITION_NAME: LAYERS},
            )
            return scanned(self.config, self.operators, name="blocks")(x, angles, mask)[0]
        stacked = self.get_variable("params", "blocks")
        if isinstance(stacked, tuple):
            return self._unstacked(x, stacked, angles, mask)
        for first, last, operators in _runs_of_blocks(self.config.num_layers, self.operators):
            layers = jax.tree.map(lambda leaf: leaf[first:last], stacked)  # noqa: B023
            x = self._run(x, layers, angles, mask, operators)
        return x

    def _unstacked(self, x, layers, angles, mask) -> jax.Array:
        """Layer after layer: what differs between them, as in quantised weights, does not stack."""
        for index, layer in enumerate(layers):
            operators = self.operators.of_block(index, len(layers))
            x = Block(self.config, operators).apply({"params": layer}, x, angles, mask)[0]
        return x

    def _run(self, x, layers, angles, mask, operators: Operators) -> jax.Array:
        """`x` through blocks with the stacked parameters `layers`."""
        block = Block(self.config, operators)

        def apply(x, layer):
            return block.apply({"params": layer}, x, angles, mask)[0], None

        if self.remat != "none":
            # A scan merges nothing of its backward pass with the forward one.
            apply = jax.checkpoint(apply, policy=checkpoint_policy(self.remat), prevent_cse=False)
        return jax.lax.scan(apply, x, layers)[0]


def _runs_of_blocks(num_layers: int, operators: Operators) -> list[tuple[int, int, Operators]]:
    """Consecutive blocks that compute alike: the first, one past the last, and their operators.

    Where the first and the last block differ, the weights of those between are copied once a step:
    a slice is not an argument that a loop can take in place.
    """
    runs: list[tuple[int, int, Operators]] = []
    for index in range(num_layers):
        of_block = operators.of_block(index, num_layers)
        if runs and runs[-1][2] == of_block:
            runs[-1] = (runs[-1][0], index + 1, of_block)
        else:
            runs.append((index, index + 1, of_block))
    return runs
