"""The attention reference against the oracle, over random intervals."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.kernels.attention.mask import IntervalMask, causal_mask, packed_mask
from llama_jax.kernels.attention.reference import attention

_path = Path(__file__).parents[1] / "oracles" / "attention.py"
_spec = importlib.util.spec_from_file_location("attention_oracle", _path)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*[st.integers(1, n) for n in (2, 4, 6)]),
    heads=st.sampled_from([(1, 1), (2, 2), (6, 2), (8, 1)]),
)
def test_equals_the_oracle_for_any_intervals(seed, shape, heads):
    rng = np.random.default_rng(seed)
    (B, T, S), (N, K) = shape, heads
    query = rng.standard_normal((B, N, T, 8), np.float32)
    key, value = rng.standard_normal((2, B, K, S, 8), np.float32)
    start, end = rng.integers(0, S + 1, (2, B, T)).astype(np.int32)  # some of them empty
    result = attention(query, key, value, IntervalMask(start, end), scale=0.3)
    expected = oracle.attention(query, key, value, start, end, scale=0.3)
    # float32 against float64 over at most six keys.
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_empty_interval_has_zero_output_and_finite_gradient():
    key = jax.random.normal(jax.random.key(0), (1, 1, 3, 8))
    mask = IntervalMask(jnp.array([[2, 0]]), jnp.array([[2, 3]]))

    def total(query):
        return attention(query, key, key, mask, scale=1.0).sum()

    gradient = jax.grad(total)(jnp.ones((1, 1, 2, 8)))
    assert np.isfinite(gradient).all()
    assert not gradient[0, 0, 0].any()


def test_masks():
    assert causal_mask(1, 3).key_start.tolist() == [[0, 0, 0]]
    assert causal_mask(1, 3).key_end.tolist() == [[1, 2, 3]]
    packed = packed_mask(jnp.array([[5, 5, 7, 7, 7], [1, 2, 1, 1, 1]]))
    assert packed.key_start.tolist() == [[0, 0, 2, 2, 2], [0, 1, 2, 2, 2]]
    assert packed.key_end.tolist() == [[1, 2, 3, 4, 5]] * 2
