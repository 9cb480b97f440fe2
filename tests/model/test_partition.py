"""Logical axis names: they reach the activations, and a wrong one is an error."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from llama_jax.config import TINY
from llama_jax.model import axes, forward, init_params

RULES = [(name, None) for key, name in vars(axes).items() if key.isupper()]


def rules(**changed):
    return [(name, changed.get(name, axis)) for name, axis in RULES]


def test_rules_partition_the_hidden_states():
    params = init_params(TINY, jax.random.key(0))
    tokens = jnp.zeros((4, 8), jnp.int32)
    run = jax.jit(lambda params, tokens: forward(params, tokens, config=TINY))
    auto = jax.sharding.AxisType.Auto
    with jax.set_mesh(jax.make_mesh((4, 2), ("rows", "columns"), (auto, auto))):
        with nn.logical_axis_rules(rules(batch="rows", activation_feed_forward="columns")):
            hidden = run(params, tokens)
    assert hidden.sharding.spec[0] == "rows"


def test_a_missing_rule_is_an_error():
    params = init_params(TINY, jax.random.key(0))
    tokens = jnp.zeros((4, 8), jnp.int32)
    with jax.set_mesh(jax.make_mesh((8,), ("rows",), (jax.sharding.AxisType.Auto,))):
        misspelt = [("btach" if name == "batch" else name, axis) for name, axis in RULES]
        with nn.logical_axis_rules(misspelt):
            with pytest.raises(ValueError, match="batch"):
                jax.jit(lambda: forward(params, tokens, config=TINY))()
