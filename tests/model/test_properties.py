"""Properties that hold for any weights: packing, caching, padding; and no config field is dead."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import (
    LLAMA_31_8B,
    TINY,
    DynamicNtkScaling,
    LinearScaling,
    ModelConfig,
    NtkScaling,
)
from llama_jax.errors import InputError
from llama_jax.model import (
    abstract_params,
    forward,
    forward_cached,
    init_cache,
    init_params,
    logits,
    unstack_blocks,
)

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

jitted_forward = jax.jit(forward, static_argnames="config")
jitted_forward_cached = jax.jit(forward_cached, static_argnames="config")

# float32, two layers, another order of summation; hidden states are of order one.
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def params():
    return init_params(TINY, jax.random.key(0))


def tokens_of(*shape):
    return jax.random.randint(jax.random.key(1), shape, 0, TINY.vocab_size)


def test_packed_documents_equal_separate_documents(params):
    one, two = tokens_of(1, 5), tokens_of(1, 8)
    packed = jnp.concatenate([one, two], axis=1)
    segment_ids = jnp.array([[1] * 5 + [2] * 8])
    hidden = jitted_forward(params, packed, config=TINY, segment_ids=segment_ids)
    expected = [jitted_forward(params, tokens, config=TINY) for tokens in (one, two)]
    np.testing.assert_allclose(hidden, jnp.concatenate(expected, axis=1), atol=TOLERANCE)


def test_packing_is_refused_where_it_would_leak(params):
    scaling = DynamicNtkScaling(factor=2.0, original_context_length=4)
    config = dataclasses.replace(TINY, rope_scaling=scaling)
    with pytest.raises(InputError, match="dynamic"):
        forward(params, tokens_of(1, 4), config=config, segment_ids=jnp.array([[1, 1, 2, 2]]))


def test_a_longer_sequence_does_not_change_the_past(params):
    tokens = tokens_of(2, 12)
    long = jitted_forward(params, tokens, config=TINY)
    short = jitted_forward(params, tokens[:, :7], config=TINY)
    np.testing.assert_allclose(long[:, :7], short, atol=TOLERANCE)


@pytest.mark.parametrize("chunks", [[11], [6, 1, 1, 1, 1, 1], [1] * 11, [4, 7]], ids=str)
def test_cached_equals_uncached(params, chunks):
    tokens = tokens_of(2, 11)
    cache = init_cache(TINY, 2, 16, jnp.float32)
    layers = unstack_blocks(params)
    hidden, at = [], 0
    for size in chunks:
        step, cache = jitted_forward_cached(layers, tokens[:, at : at + size], cache, config=TINY)
        hidden.append(step)
        at += size
    expected = jitted_forward(params, tokens, config=TINY)
    np.testing.assert_allclose(jnp.concatenate(hidden, axis=1), expected, atol=TOLERANCE)
    assert int(cache.length) == 11


@pytest.mark.parametrize(
    "scaling", [TINY.rope_scaling, DynamicNtkScaling(factor=2.0, original_context_length=4)]
)
def test_left_padded_rows_equal_rows_alone(params, scaling):
    config = dataclasses.replace(TINY, rope_scaling=scaling)
    rows = [tokens_of(1, 9), tokens_of(1, 4)]
    padded = jnp.concatenate([rows[0], jnp.pad(rows[1], ((0, 0), (5, 0)))])
    cache = init_cache(config, 2, 12, jnp.float32)._replace(first=jnp.array([0, 5]))
    hidden, _ = jitted_forward_cached(unstack_blocks(params), padded, cache, config=config)
    for row, tokens in enumerate(rows):
        expected = jitted_forward(params, tokens, config=config)[0]
        np.testing.assert_allclose(hidden[row, -len(expected) :], expected, atol=TOLERANCE)


@pytest.mark.parametrize("change", [
    {"norm_eps": 1e-2},
    {"rope_theta": 1e4},
    {"rope_scaling": None},
    {"rope_scaling": NtkScaling(factor=8.0)},
    {"rope_scaling": LinearScaling(factor=8.0)},
    {"rope_scaling": DynamicNtkScaling(factor=2.0, original_context_length=4)},
    *[{"rope_scaling": dataclasses.replace(TINY.rope_scaling, **field)} for field in (
        {"factor": 32.0}, {"low_frequency_factor": 2.0}, {"high_frequency_factor": 8.0},
        {"original_context_length": 4096},
    )],
    {"tied_embeddings": True},
], ids=str)  # fmt: skip
def test_every_number_changes_the_logits(params, change):
    config = dataclasses.replace(TINY, **change)
    # Large weights, far apart: slow frequencies turn little over a few tokens.
    params = jax.tree.map(lambda leaf: 10 * leaf, params)
    tokens, positions = tokens_of(1, 16), 1000 * jnp.arange(16)[None]

    def scores(config):
        hidden = jitted_forward(params, tokens, config=config, positions=positions)
        return logits(params, hidden, config=config)

    assert jnp.abs(scores(config) - scores(TINY)).max() > 1e-4


def test_every_shape_is_in_the_parameters():
    shapes = jax.tree.map(jnp.shape, abstract_params(TINY))
    sizes = {"vocab_size": 512, "num_layers": 3, "model_dim": 32, "num_heads": 8}
    sizes |= {"num_kv_heads": 4, "head_dim": 8, "feed_forward_dim": 64}
    sizes |= {"tied_embeddings": True, "reward_head": True}
    for field, value in sizes.items():
        changed = abstract_params(dataclasses.replace(TINY, **{field: value}))
        assert jax.tree.map(jnp.shape, changed) != shapes, field
    # The one field that no computation reads: it bounds what the callers ask for.
    tested = {*sizes, "norm_eps", "rope_theta", "rope_scaling", "context_length"}
    assert {field.name for field in dataclasses.fields(ModelConfig)} == tested


def test_a_wrong_shape_is_named(params):
    wrong = {**params, "embedding": params["embedding"][:-1]}
    with pytest.raises(Exception, match="embedding"):
        forward(wrong, tokens_of(1, 2), config=TINY)


@pytest.mark.parametrize("scaling", [
    None, LLAMA_31_8B.rope_scaling, NtkScaling(2.0), LinearScaling(2.0), DynamicNtkScaling(2.0, 16)
], ids=str)  # fmt: skip
def test_config_survives_json(scaling):
    config = dataclasses.replace(LLAMA_31_8B, rope_scaling=scaling)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("change, word", [
    ({"num_kv_heads": 3}, "num_kv_heads"), ({"head_dim": 15}, "head_dim"),
    ({"rope_scaling": NtkScaling(2.0), "head_dim": 2}, "head_dim"), ({"num_layers": 2.5}, "layers"),
    ({"tied_embeddings": 1}, "tied_embeddings"),
    ({"num_layers": 0}, "num_layers"), ({"norm_eps": float("nan")}, "norm_eps"),
])  # fmt: skip
def test_impossible_configs_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("make", [
    lambda: LinearScaling(0.0), lambda: NtkScaling(float("inf")), lambda: LinearScaling("2"),
    lambda: DynamicNtkScaling(2.0, 0),
    lambda: dataclasses.replace(TINY.rope_scaling, low_frequency_factor=4.0),
])  # fmt: skip
def test_impossible_scalings_are_refused(make):
    with pytest.raises(InputError, match="model config"):
        make()
