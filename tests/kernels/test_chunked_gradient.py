"""The gradient of attention by blocks against JAX's own of the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.kernels.attention import chunked, reference
from llama_jax.kernels.attention.mask import IntervalMask, causal_mask, packed_mask
from llama_jax.model.remat import checkpoint_policy

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

BLOCK = 16
SCALE = 0.3


def left_padded(length):
    """The second row begins with 21 tokens of padding, which see nothing and which none sees."""
    start = jnp.array([[0], [21]], jnp.int32)
    causal = causal_mask(2, length)
    return IntervalMask(
        jnp.broadcast_to(start, (2, length)),
        jnp.where(causal.key_end > start, causal.key_end, start),
    )


def packed(length):
    """Documents shorter than a block, across two blocks, and of several blocks."""
    ends = jnp.array([[5, 20, 23, length], [1, 40, 41, 47]])
    return packed_mask(jnp.sum(jnp.arange(length)[None, :, None] >= ends[:, None], axis=-1))


def sliding(length):
    causal = causal_mask(2, length)
    return IntervalMask(jnp.maximum(causal.key_end - 19, 0), causal.key_end)


def all_empty(length):
    return IntervalMask(*jnp.zeros((2, 2, length), jnp.int32))


MASKS = {
    "causal": functools.partial(causal_mask, 2),
    "packed": packed,
    "left_padded": left_padded,
    "sliding": sliding,
    "all_empty": all_empty,
}


def draw(seed, query_shape, key_shape, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = (query_shape, key_shape, key_shape, query_shape)
    return [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnums=0)
def run(attention, query, key, value, outer, mask):
    """The output, and the gradients of query, key and value."""
    output, pull_back = jax.vjp(
        lambda *inputs: attention(*inputs, mask, scale=SCALE), query, key, value
    )
    return output, *pull_back(outer)


CHUNKED = functools.partial(chunked.attention, block=BLOCK)


def assert_equals_the_reference(inputs, mask):
    results = run(CHUNKED, *inputs, mask)
    for result, expected in zip(results, run(reference.attention, *inputs, mask), strict=True):
        # Two orders of the same float32 sums, of at most 100 numbers of order one.
        np.testing.assert_allclose(result, expected, atol=2e-5)
    return results


@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_equals_the_reference(mask, heads):
    N, K = heads
    inputs = draw(0, (2, N, 50, 8), (2, K, 50, 8))
    assert_equals_the_reference(inputs, MASKS[mask](50))


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.tuples(st.integers(1, 40), st.integers(1, 60)),
)
def test_equals_the_reference_for_any_intervals(seed, lengths):
    T, S = lengths
    start, end = np.random.default_rng(seed).integers(0, S + 1, (2, 2, T)).astype(np.int32)
    inputs = draw(seed, (2, 2, T, 4), (2, 1, S, 4))
    assert_equals_the_reference(inputs, IntervalMask(start, end))


def test_empty_rows_and_unseen_keys_have_gradients_of_zero():
    inputs = draw(1, (2, 2, 50, 8), (2, 1, 50, 8))
    _, query, key, value = assert_equals_the_reference(inputs, left_padded(50))
    for gradient in (query, key, value):
        assert not gradient[1, :, :21].any() and gradient[1, :, 21:].any()


def test_large_scores_do_not_overflow():
    query, key, value, outer = draw(2, (1, 2, 20, 8), (1, 1, 20, 8))
    inputs, mask = (100 * query, 100 * key, value, outer), causal_mask(1, 20)
    results = run(CHUNKED, *inputs, mask)
    assert all(np.isfinite(result).all() for result in results)
    output, _, _, value_gradient = results
    expected = run(reference.attention, *inputs, mask)
    # Scores reach 4e4, where float32 has steps of 4e-3, and so an error of that share of a weight.
    # Nearly all weights are 0 or 1, so the gradients of query and key are nearly all rounding.
    np.testing.assert_allclose(output, expected[0], atol=1e-2)
    np.testing.assert_allclose(value_gradient, expected[3], atol=1e-2)


def test_bfloat16():
    mask = packed(50)
    inputs = draw(3, (2, 6, 50, 32), (2, 2, 50, 32), jnp.bfloat16)
    results = run(CHUNKED, *inputs, mask)
    exact = run(reference.attention, *(x.astype(jnp.float32) for x in inputs), mask)
    for result, expected in zip(results, exact, strict=True):
        assert result.dtype == jnp.bfloat16
        error = np.linalg.norm(np.float32(result) - expected) / np.linalg.norm(expected)
        # Rounded to bfloat16, by at most 2^-8 each: the weights, the output (which enters the row
        # sum), the gradient of the scores, the result. The sums between are float32.
        assert error < 4 * 2**-8


def test_passes_through_scan_and_checkpoint():
    query, key, value, outer = draw(4, (2, 4, 50, 8), (2, 2, 50, 8))
    layers = jnp.linspace(0.5, 1.5, 3)

    def loss(attention, query, key, value):
        @jax.checkpoint
        def layer(x, factor):
            return attention(x, factor * key, value, packed(50), scale=SCALE), None

        return jnp.sum(jax.lax.scan(layer, query, layers)[0] * outer)

    gradients = jax.jit(jax.grad(loss, argnums=(1, 2, 3)), static_argnums=0)
    for result, expected in zip(
        gradients(CHUNKED, query, key, value),
        gradients(reference.attention, query, key, value),
        strict=True,
    ):
        np.testing.assert_allclose(result, expected, atol=2e-5)  # as above


def test_passes_through_shard_map():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "heads"))
    inputs = draw(5, (8, 4, 50, 8), (8, 2, 50, 8))
    mask = jax.tree.map(lambda x: jnp.tile(x, (4, 1)), packed(50))

    def sharded(query, key, value, mask, *, scale):
        whole, split = P("rows"), P("rows", "heads")
        return jax.shard_map(
            functools.partial(CHUNKED, scale=scale),
            mesh=mesh,
            in_specs=(split, split, split, whole),
            out_specs=split,
            check_vma=False,
        )(query, key, value, mask)

    results, expected = (run(attention, *inputs, mask) for attention in (sharded, CHUNKED))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, atol=1e-6)  # the same sums on each device


@pytest.mark.parametrize("policy,num_loops", [("attention", 2), ("full", 3)])
def test_a_kept_result_is_not_computed_again(policy, num_loops):
    query, key, value, _ = draw(6, (1, 2, 32, 8), (1, 1, 32, 8))

    def loss(query):
        kept = jax.checkpoint(
            lambda query: CHUNKED(2 * query, key, value, causal_mask(1, 32), scale=SCALE),
            policy=checkpoint_policy(policy),
        )
        return jnp.sum(kept(query) ** 2)

    # One loop over keys in the forward pass, one in the backward pass.
    assert str(jax.make_jaxpr(jax.grad(loss))(query)).count(" while[") == num_loops


@pytest.mark.parametrize("platform", ["cpu", "v5p:2x2x1"])
def test_memory_is_linear_in_the_length(platform):
    device, block = jax.devices()[0], chunked.BLOCK
    if platform != "cpu":
        pytest.importorskip("libtpu")
        device = topologies.get_topology_desc(platform="tpu", topology_name=platform).devices[0]
        block = chunked.ACCELERATOR_BLOCK
    here = NamedSharding(Mesh([device], "one"), P())
    N, K, T, H = 8, 2, 8192, 128
    array = functools.partial(jax.ShapeDtypeStruct, sharding=here)
    queries, keys = array((1, N, T, H), jnp.bfloat16), array((1, K, T, H), jnp.bfloat16)
    intervals = array((1, T), jnp.int32)

    def gradients(query, key, value, outer, mask):
        attention = functools.partial(chunked.attention, block=block)
        return run.__wrapped__(attention, query, key, value, outer, mask)

    compiled = jax.jit(gradients).lower(
        queries, keys, keys, queries, IntervalMask(intervals, intervals)
    )
    memory = compiled.compile().memory_analysis()
    # A few float32 copies of the queries (32 MiB each); one head's scores would be 256 MiB.
    assert 0 < memory.temp_size_in_bytes < 8 * (4 * N * T * H)
