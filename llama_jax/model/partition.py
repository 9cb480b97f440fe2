"""The logical axis names of every parameter, for whoever lays them on a mesh."""

import flax.linen as nn
import jax

from llama_jax.config import ModelConfig
from llama_jax.model.forward import Params, init_boxed


def logical_axes(config: ModelConfig) -> Params:
    """A tree like `params` of `jax.sharding.PartitionSpec`s of logical axis names (`axes.py`)."""
    boxed = jax.eval_shape(lambda: init_boxed(config, jax.random.key(0)))
    return nn.get_partition_spec(boxed)
