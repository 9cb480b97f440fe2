"""Attention in plain jnp against the oracle, over random intervals."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.kernels.attention import chunked, reference
from llama_jax.kernels.attention.mask import IntervalMask, causal_mask, packed_mask

_path = Path(__file__).parents[1] / "oracles" / "attention.py"
_spec = importlib.util.spec_from_file_location("attention_oracle", _path)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


@pytest.mark.parametrize("attention", [reference.attention, chunked.attention])
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*[st.integers(1, n) for n in (2, 4, 6)]),
    heads=st.sampled_from([(1, 1), (2, 2), (6, 2), (8, 1)]),
)
def test_equals_the_oracle_for_any_intervals(attention, seed, shape, heads):
    (B, T, S), (N, K) = shape, heads
    assert_equals_the_oracle(attention, seed, (B, N, T, 8), (B, K, S, 8))


@pytest.mark.parametrize("attention", [reference.attention, chunked.attention])
@pytest.mark.parametrize("lengths", [(1, 300), (128, 128), (200, 450)], ids=str)
def test_equals_the_oracle_over_several_blocks(attention, lengths):
    assert_equals_the_oracle(attention, 0, (1, 2, lengths[0], 8), (1, 1, lengths[1], 8))


def assert_equals_the_oracle(attention, seed, query_shape, key_shape):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal(query_shape, np.float32)
    key, value = rng.standard_normal((2, *key_shape), np.float32)
    intervals = (2, query_shape[0], query_shape[2])
    start, end = rng.integers(0, key_shape[2] + 1, intervals).astype(np.int32)  # some empty
    result = jax.jit(attention, static_argnames="scale")(
        query, key, value, IntervalMask(start, end), scale=0.3
    )
    expected = oracle.attention(query, key, value, start, end, scale=0.3)
    # float32 against float64; outputs are means of numbers of order one.
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_empty_interval_has_zero_output_and_finite_gradient():
    key = jax.random.normal(jax.random.key(0), (1, 1, 3, 8))
    mask = IntervalMask(jnp.array([[2, 0]]), jnp.array([[2, 3]]))

    def total(query):
        return reference.attention(query, key, key, mask, scale=1.0).sum()

    gradient = jax.grad(total)(jnp.ones((1, 1, 2, 8)))
    assert np.isfinite(gradient).all()
    assert not gradient[0, 0, 0].any()


def test_masks():
    assert causal_mask(1, 3).key_start.tolist() == [[0, 0, 0]]
    assert causal_mask(1, 3).key_end.tolist() == [[1, 2, 3]]
    packed = packed_mask(jnp.array([[5, 5, 7, 7, 7], [1, 2, 1, 1, 1]]))
    assert packed.key_start.tolist() == [[0, 0, 2, 2, 2], [0, 1, 2, 2, 2]]
    assert packed.key_end.tolist() == [[1, 2, 3, 4, 5]] * 2
