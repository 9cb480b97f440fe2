"""Where an activation lives, said in logical axis names."""

import flax.linen as nn
import jax
from flax.linen.spmd import RulesFallback


def constrain(x: jax.Array, *axes: str) -> jax.Array:
    """`x`, partitioned as the rules in force map `axes`, one name per dimension.

    Without rules it does nothing, so the model runs on a laptop. With rules, a name they lack is a
    `ValueError`: by default flax would leave a misspelt axis silently unsharded.
    """
    return nn.with_logical_constraint(x, axes, fallback=RulesFallback.RAISE_ERROR)
