"""How a weight is declared: shape, logical axes and initial distribution in one place.

Neither the paper nor Meta's code states the initial distribution. Ours is GPT-2's: normal with
standard deviation 0.02, divided by `sqrt(2 * num_layers)` where a product is added to the residual
stream, so that its variance does not grow with depth.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig

STANDARD_DEVIATION = 0.02


def normal(*axes: str) -> Callable[..., jax.Array]:
    """Initialiser of a weight with these logical axes."""
    return _partitioned_normal(STANDARD_DEVIATION, axes)


def residual_normal(config: ModelConfig, *axes: str) -> Callable[..., jax.Array]:
    """Initialiser of a weight whose product is added to the residual stream."""
    return _partitioned_normal(STANDARD_DEVIATION / (2 * config.num_layers) ** 0.5, axes)


def _partitioned_normal(standard_deviation: float, axes: tuple[str, ...]):
    def initialise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return standard_deviation * jax.random.normal(key, shape, jnp.float32)

    return nn.with_logical_partitioning(initialise, axes)
