"""A KV cache in 8 bits against the one that is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import TINY
from llama_jax.costs import kv_bytes_per_token
from llama_jax.errors import InputError
from llama_jax.kernels.attention import chunked, reference
from llama_jax.kernels.attention.implementations import attention_by_name
from llama_jax.kernels.attention.mask import IntervalMask, causal_mask
from llama_jax.kernels.attention.quantized_vectors import quantize_vectors
from llama_jax.model import (
    DECODE,
    PREFILL,
    forward,
    forward_cached,
    init_cache,
    init_params,
    logits,
    unstack_blocks,
)
from tests.oracles import attention as oracle

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

DTYPES = [jnp.int8, jnp.float8_e4m3fn]
# Half a step of the largest number of a vector: 1/254 of it, and 1/16 of each number.
STEPS = {jnp.int8: 1 / 254, jnp.float8_e4m3fn: 1 / 16}


@pytest.mark.parametrize("attention", [reference.attention, chunked.attention])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_over_quantised_vectors_is_that_over_what_they_stand_for(attention, dtype):
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, 4, 5, 16), np.float32)
    # Vectors of very different lengths, and one of zeros.
    key, value = rng.standard_normal((2, 2, 2, 150, 16)) * np.exp(
        3 * rng.standard_normal((2, 2, 2, 150, 1))
    ).clip(0, 4)
    key[0, 0, 3] = 0
    start, end = np.sort(rng.integers(0, 151, (2, 2, 5)), axis=0).astype(np.int32)
    keys, values = (quantize_vectors(jnp.asarray(x, jnp.float32), dtype) for x in (key, value))
    result = jax.jit(attention, static_argnames="scale")(
        query, keys, values, IntervalMask(start, end), scale=0.3
    )
    stands_for = [np.asarray(x.dequantize(jnp.float32), np.float64) for x in (keys, values)]
    expected = oracle.attention(query, *stands_for, start, end, scale=0.3)
    # float32 against float64; values reach 20.
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_vector_keeps_its_own_precision(dtype):
    x = jax.random.normal(jax.random.key(0), (1, 2, 30, 64)) * jnp.geomspace(1e-6, 1e6, 30)[:, None]
    stored = quantize_vectors(x, dtype)
    largest = jnp.abs(x).max(-1, keepdims=True)
    error = jnp.abs(stored.dequantize(jnp.float32) - x) / largest
    assert 0 < error.max() < 1.01 * STEPS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_token_by_token_writes_what_a_prompt_writes(dtype):
    params = unstack_blocks(init_params(TINY, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, TINY.vocab_size)
    at_once = init_cache(TINY, 2, 16, dtype)
    hidden, at_once = forward_cached(params, tokens, at_once, config=TINY, operators=PREFILL)
    one_by_one, results = init_cache(TINY, 2, 16, dtype), []
    for t in range(12):
        new, one_by_one = forward_cached(
            params, tokens[:, t : t + 1], one_by_one, config=TINY, operators=DECODE
        )
        results.append(new)
    # The first layer sees the same inputs: the same bits. Beyond it float32 sums in other orders
    # may fall on the other side of a rounding, which is a step of one number in 16 or 127.
    first, other = at_once.keys[0], one_by_one.keys[0]
    np.testing.assert_allclose(first.scales, other.scales, rtol=1e-6)
    np.testing.assert_allclose(
        jnp.concatenate(results, 1), hidden, atol=0.05 * float(jnp.abs(hidden).max())
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_near_those_of_an_exact_cache(dtype):
    stacked = init_params(TINY, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, TINY.vocab_size)
    cache = init_cache(TINY, 2, 16, dtype)
    params = unstack_blocks(stacked)
    hidden = forward_cached(params, tokens, cache, config=TINY, operators=PREFILL)[0]
    exact = forward(stacked, tokens, config=TINY)
    result, expected = (logits(stacked, x, config=TINY) for x in (hidden, exact))
    error = float(jnp.abs(result - expected).max() / jnp.abs(expected).max())
    # Keys err by a step at most, and values too (measured: 1.2 steps of int8); never by nothing.
    assert 0 < error < 2 * STEPS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_the_formula(dtype):
    cache = jax.eval_shape(lambda: init_cache(TINY, 3, 64, dtype))
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((cache.keys, cache.values)))
    assert stored == 3 * 64 * kv_bytes_per_token(TINY, dtype)
    wide = dataclasses.replace(TINY, head_dim=128)
    ratio = kv_bytes_per_token(wide, dtype) / kv_bytes_per_token(wide, jnp.bfloat16)
    assert ratio == 132 / 256


def test_kernels_that_take_no_quantised_vectors_say_who_does():
    attention = attention_by_name("splash", platform="tpu", device_kind="TPU v5p")
    key = quantize_vectors(jnp.ones((1, 2, 128, 128)), jnp.int8)
    query = jax.ShapeDtypeStruct((1, 4, 128, 128), jnp.bfloat16)
    with pytest.raises(InputError, match="no quantised keys.*reference, chunked"):
        jax.eval_shape(lambda q: attention(q, key, key, causal_mask(1, 128), scale=1.0), query)
