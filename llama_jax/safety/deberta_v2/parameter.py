"""How weights are declared: BERT's initial distribution, for tests; real ones are loaded."""

import jax
import jax.numpy as jnp


def weight(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 0.02."""
    return 0.02 * jax.random.normal(key, shape, jnp.float32)


def bias(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros."""
    return jnp.zeros(shape, jnp.float32)


def scale(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Ones."""
    return jnp.ones(shape, jnp.float32)
