"""The partition: every parameter has a rule, every rule is used, mistakes are not passed over."""

import dataclasses
import math

import jax
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax.config import LLAMA_31_8B, TINY
from llama_jax.model import (
    abstract_params,
    attention,
    axes,
    block,
    feed_forward,
    logical_axes,
    transformer,
)
from sharding.mesh import MESH_AXES, MeshShape, make_mesh
from sharding.placement import batch_sharding, param_shardings
from sharding.rules import TRAINING, mesh_spec


def specs(config, mesh):
    """Path -> partition of each parameter."""
    shardings = param_shardings(config, mesh)
    return {
        "/".join(key.key for key in path): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)
    }


def test_every_name_of_the_model_has_a_rule_and_every_rule_a_name():
    names = {value for key, value in vars(axes).items() if key.isupper()}
    assert set(TRAINING) == names
    assert {axis for part in TRAINING.values() for axis in part} <= set(MESH_AXES)


def test_every_rule_is_used():
    """By a parameter, by a batch or by an activation of the model."""
    used = {
        name
        for names in jax.tree.leaves(logical_axes(TINY), is_leaf=lambda x: isinstance(x, P))
        for name in names
    }
    for module in (attention, block, feed_forward, transformer):
        imported = {key for key, value in vars(axes).items() if key.isupper()}
        used |= {getattr(axes, key) for key in imported & set(vars(module))}
    used |= {axes.BATCH, axes.SEQUENCE}
    assert set(TRAINING) <= used


def test_the_partition_of_each_parameter():
    """The whole table, as it is meant to be read."""
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    assert specs(TINY, mesh) == {
        "embedding": P("tensor", "fsdp"),
        "head": P("tensor", "fsdp"),
        "final_norm/scale": P("fsdp"),
        "blocks/attention_norm/scale": P(None, "fsdp"),
        "blocks/attention/query": P(None, "tensor", None, "fsdp"),
        "blocks/attention/key": P(None, "tensor", None, "fsdp"),
        "blocks/attention/value": P(None, "tensor", None, "fsdp"),
        "blocks/attention/output": P(None, "fsdp", "tensor", None),
        "blocks/feed_forward_norm/scale": P(None, "fsdp"),
        "blocks/feed_forward/gate": P(None, "tensor", "fsdp"),
        "blocks/feed_forward/up": P(None, "tensor", "fsdp"),
        "blocks/feed_forward/down": P(None, "fsdp", "tensor"),
    }
    assert batch_sharding(mesh).spec == P(None, ("data", "fsdp"), "context")


@pytest.mark.parametrize("tied", [False, True])
def test_fsdp_and_tensor_split_every_matrix_of_8b_by_all_their_devices(tied):
    config = dataclasses.replace(LLAMA_31_8B, tied_embeddings=tied)
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
    params, shardings = abstract_params(config), param_shardings(config, mesh)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        num_parts = 4 if path[-1].key == "scale" else 8
        assert math.prod(sharding.shard_shape(leaf.shape)) * num_parts == leaf.size


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"no rule for the logical axes \['btach'\]; there are"):
        mesh_spec(("btach", axes.EMBED))


def test_a_mesh_axis_for_two_dimensions_is_an_error():
    with pytest.raises(ValueError, match="use a mesh axis twice"):
        mesh_spec((axes.BATCH, axes.EMBED))  # both have fsdp
    with pytest.raises(ValueError, match="use a mesh axis twice"):
        mesh_spec((axes.HEADS, axes.FEED_FORWARD))


def test_none_is_not_split():
    assert mesh_spec((None, axes.EMBED, None)) == P(None, "fsdp", None)
    assert mesh_spec((axes.LAYERS, axes.HEAD_DIM)) == P(None, None)
