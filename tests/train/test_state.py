"""The state: which precision its parts have, before and after a step."""

import jax
import jax.numpy as jnp
import pytest

from llama_jax.config import TINY
from sharding.mesh import MeshShape, make_mesh
from sharding.placement import on_mesh
from train.config import CheckpointConfig, OptimizerConfig, RunConfig
from train.job import make_network
from train.losses.cross_entropy import CrossEntropy
from train.optimizer import make_optimizer
from train.state import abstract_state
from train.step import make_train_step


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_a_step_keeps_the_dtypes_of_the_state(param_dtype, micro_batches):
    """Or the next step, compiled for what the first was given, could not take the result."""
    config = OptimizerConfig(moment_dtype="bfloat16")
    run = RunConfig("", TINY, "", (), CheckpointConfig(1), config, param_dtype=param_dtype)
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    with on_mesh(mesh):
        dtype = jnp.dtype(param_dtype)
        state = abstract_state(TINY, make_optimizer(config), mesh, dtype=dtype)
        network = make_network(run, TINY, mesh)
        rate = jnp.float32(0.1)
        step = make_train_step(network, config, lambda _: rate, loss=CrossEntropy(), state=state)
        shape = (micro_batches, 2, 8)
        batch = {
            name: jax.ShapeDtypeStruct(shape, jnp.bool_ if name == "loss_mask" else jnp.int32)
            for name in ("tokens", "targets", "segment_ids", "loss_mask")
        }
        after, _ = jax.eval_shape(step, state, {}, batch)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, (state, after))
    assert dtypes[0] == dtypes[1]
    adam = state.optimizer_state[1]
    for tree, wanted in ((state.params, dtype), (adam.mu, jnp.bfloat16), (adam.nu, jnp.float32)):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(wanted)}
