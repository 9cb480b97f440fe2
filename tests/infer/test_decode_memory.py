"""The whole decoding loop, compiled for a TPU: the donated cache is updated in place."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from infer.decode_loop import DecodeState, decode
from infer.sampling import GREEDY, stack_sampling
from llama_jax.config import LLAMA_32_1B
from llama_jax.model import DECODE, abstract_params, init_cache, unstack_blocks


def test_the_loop_copies_no_cache_on_tpu():
    pytest.importorskip("libtpu")
    config, num_rows = dataclasses.replace(LLAMA_32_1B, num_layers=4), 16
    device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
    here = NamedSharding(jax.sharding.Mesh([device], "one"), PartitionSpec())
    rows, mode = stack_sampling([GREEDY] * num_rows)

    def make_arguments():
        params = unstack_blocks(
            jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                abstract_params(config, dtype=jnp.bfloat16),
            )
        )
        numbers = jnp.zeros(num_rows, jnp.int32)
        cache = init_cache(config, num_rows, 8192, jnp.bfloat16)
        state = DecodeState(cache, numbers, numbers, numbers, numbers == 0)
        return params, state, jax.tree.map(jnp.asarray, rows), jnp.zeros(1, jnp.int32)

    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        jax.eval_shape(make_arguments),
    )
    num_steps = jax.ShapeDtypeStruct((), jnp.int32, sharding=here)
    lowered = decode.lower(
        *arguments,
        num_steps=num_steps,
        most_steps=16,
        config=config,
        operators=DECODE,
        mode=mode,
        vocab_size=config.vocab_size,
    )
    memory = lowered.compile().memory_analysis()
    cache = arguments[1].cache
    cache_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < 0.1 * cache_bytes
