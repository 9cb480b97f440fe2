"""Decoding updates the donated cache in place: nothing the size of the cache is ever copied."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.config import LLAMA_32_1B
from llama_jax.model import abstract_params, forward_cached, init_cache, unstack_blocks


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8, jnp.float8_e4m3fn])
def test_no_copy_of_the_cache_on_tpu(topology, dtype):
    pytest.importorskip("libtpu")
    config = dataclasses.replace(LLAMA_32_1B, num_layers=4)
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    mesh = jax.sharding.Mesh([device], "one")
    here = NamedSharding(mesh, PartitionSpec())

    def placed(tree):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree
        )

    params = placed(jax.eval_shape(unstack_blocks, abstract_params(config, dtype=jnp.bfloat16)))
    make_cache = functools.partial(init_cache, config, 16, 8192, dtype)
    cache = placed(jax.eval_shape(make_cache))
    tokens = jax.ShapeDtypeStruct((16, 1), jnp.int32, sharding=here)
    step = jax.jit(functools.partial(forward_cached, config=config), donate_argnums=2)
    memory = step.lower(params, tokens, cache).compile().memory_analysis()
    cache_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < 0.1 * cache_bytes
