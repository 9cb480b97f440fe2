"""Where parameters and batches lie on a mesh, and the one way to be on a mesh.

Nothing here is ever whole on one device: parameters are made by a jitted function whose outputs are
already split.
"""

import contextlib
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.config import ModelConfig
from llama_jax.model import Params, init_params, logical_axes
from llama_jax.model.axes import BATCH, SEQUENCE
from sharding.rules import TRAINING, Rules, mesh_spec


@contextlib.contextmanager
def on_mesh(mesh: Mesh, rules: Rules = TRAINING) -> Iterator[None]:
    """The model's logical axes mean those of `mesh`.

    `jax.set_mesh` and not `with mesh`, under which flax drops its constraints without a word.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(rules.items())):
        yield


def param_shardings(config: ModelConfig, mesh: Mesh, rules: Rules = TRAINING) -> Params:
    """A tree like `params` of `NamedSharding`s."""
    return jax.tree.map(
        lambda names: NamedSharding(mesh, mesh_spec(tuple(names), rules)),
        logical_axes(config),
        is_leaf=lambda node: isinstance(node, PartitionSpec),
    )


def init_sharded_params(
    config: ModelConfig, key: jax.Array, mesh: Mesh, *, dtype: jnp.dtype = jnp.float32
) -> Params:
    """`init_params`, each device making its own part; the values do not depend on the mesh."""
    init = jax.jit(
        lambda key: init_params(config, key, dtype=dtype),
        out_shardings=param_shardings(config, mesh),
    )
    return init(key)


def batch_sharding(mesh: Mesh, rules: Rules = TRAINING) -> NamedSharding:
    """Of a batch `[A, B, T]`: micro-batches one after another, rows and tokens split."""
    return NamedSharding(mesh, mesh_spec((None, BATCH, SEQUENCE), rules))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())
