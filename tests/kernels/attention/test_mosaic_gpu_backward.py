"""The backward kernels for Hopper, interpreted on a CPU, against the float32 reference's gradients.

Each kernel alone, on whole blocks; with padding and through `jax.vjp` they are tested in
`test_implementations.py`. The simulation does products at once and would not see that a wait for
one is missing. No GPU has run them: what can be known of their machine code is tested here too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels import mosaic_gpu_portability
from llama_jax.kernels.attention import mosaic_gpu_dkv, mosaic_gpu_dq, reference
from llama_jax.kernels.attention.block_ranges import key_block_ranges, query_block_ranges
from llama_jax.kernels.attention.mask import (
    IntervalMask,
    causal_mask,
    packed_mask,
    window_mask,
)
from llama_jax.kernels.compiler_report import compile_for_gpu

# Compiling is nearly all of the time of these tests.
pytestmark = pytest.mark.usefixtures("quick_compilation")

# Of a multiprocessor of an H100, for one block of threads.
SHARED_MEMORY = 227 * 1024
# Of the largest number of an array, against float32 arithmetic on the same numbers: weights,
# gradients of scores and results are rounded to bfloat16, by 2**-9 each, and the errors of a few
# hundred terms mostly cancel.
TOLERANCE = 2**-7


def causal(B, T, S):
    return causal_mask(B, T)


def packed(B, T, S):
    """Documents that end inside of blocks, and some of one token."""
    return packed_mask(jnp.broadcast_to(jnp.searchsorted(
        jnp.array([100, 101, 102, 230]), jnp.arange(T), side="right"), (B, T)))  # fmt: skip


def window(B, T, S):
    return window_mask(causal_mask(B, T), 70)


def some_rows_empty(B, T, S):
    """The queries follow S - T keys. Every third sees nothing, and nothing sees the last 100 keys.

    Empty intervals are of every kind: at 0, inside, end before start.
    """
    row = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    end = jnp.minimum(S - T + row + 1, S - 100)
    end = jnp.where(row % 3 == 0, row % 2, end)
    start = jnp.where(row % 3 == 0, row % 5 + 1, 0)
    return IntervalMask(start, end)


def anything(B, T, S):
    start, end = np.random.default_rng(0).integers(0, S + 1, (2, B, T)).astype(np.int32)
    return IntervalMask(jnp.asarray(start), jnp.asarray(end))


def nothing(B, T, S):
    return IntervalMask(jnp.zeros((B, T), jnp.int32), jnp.zeros((B, T), jnp.int32))


def problem(mask_of, heads, lengths, head_dim=64, batch=1, dtype=jnp.bfloat16):
    """Arguments of both kernels but ranges, the mask, and the gradients that they should give."""
    (N, K), (T, S), B, H = heads, lengths, batch, head_dim
    keys = jax.random.split(jax.random.key(2), 5)
    query, gradient = (jax.random.normal(key, (B, N, T, H), dtype) for key in keys[:2])
    key, value = (jax.random.normal(key, (B, K, S, H), dtype) for key in keys[2:4])
    lse_gradient = jax.random.normal(keys[4], (B, N, T))
    mask = mask_of(B, T, S)

    @jax.jit
    def exact(*arrays):
        def forward(*arrays):
            return reference.attention(*arrays, mask, scale=H**-0.5, return_lse=True)

        *arrays, gradient = (x.astype(jnp.float32) for x in arrays)
        (output, lse), pull_back = jax.vjp(forward, *arrays)
        delta = jnp.sum(gradient * output, axis=-1) - lse_gradient
        return lse, delta, pull_back((gradient, lse_gradient))

    lse, delta, gradients = exact(query, key, value, gradient)
    arguments = query, key, value, gradient, lse, delta, mask.key_start, mask.key_end
    return arguments, mask, gradients


def computed(arguments, mask):
    """The gradients by the kernels."""
    S, H = arguments[1].shape[2:]

    def ranges(kernel):
        return key_block_ranges(mask, S, query_block=kernel.QUERY_BLOCK, key_block=kernel.KEY_BLOCK)

    options = {"scale": H**-0.5, "interpret": True}
    seen = jnp.stack(ranges(mosaic_gpu_dq), axis=-1)
    of_query = jax.jit(functools.partial(mosaic_gpu_dq.query_gradient, **options))
    reverse = query_block_ranges(ranges(mosaic_gpu_dkv), S // mosaic_gpu_dkv.KEY_BLOCK)
    seen_by = jnp.stack(reverse, axis=-1)
    of_keys = jax.jit(functools.partial(mosaic_gpu_dkv.key_value_gradients, **options))
    return of_query(*arguments, seen), *of_keys(*arguments, seen_by)


def assert_gradients_are_right(*case, **more):
    arguments, mask, expected = problem(*case, **more)
    query, key = arguments[:2]
    slots = jnp.arange(key.shape[2])
    seen = (slots >= mask.key_start[..., None]) & (slots < mask.key_end[..., None])
    empty, unseen = ~np.asarray(seen.any(axis=2)), ~np.asarray(seen.any(axis=1))
    for what, result, exact, hidden in zip(
        ("query", "key", "value"),
        computed(arguments, mask),
        expected,
        (empty, unseen, unseen),
        strict=True,
    ):
        assert result.dtype == query.dtype and result.shape == exact.shape, what
        result = np.asarray(result, np.float32)
        atol = TOLERANCE * np.abs(exact).max()
        np.testing.assert_allclose(result, exact, rtol=0, atol=atol, err_msg=what)
        assert not np.moveaxis(result, 1, 2)[hidden].any(), what


@pytest.mark.parametrize(
    "case",
    [
        # More tiles than the rings have slots, with mask and without.
        (causal, (2, 1), (256, 256)),
        (some_rows_empty, (4, 1), (128, 384)),
        (nothing, (1, 1), (128, 128)),
    ],
    ids=lambda case: case[0].__name__,
)
def test_gradients_are_those_of_the_reference(case):
    assert_gradients_are_right(*case)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "more"),
    [
        ((causal, (4, 1), (384, 384)), {"head_dim": 128}),
        ((packed, (2, 2), (256, 256)), {}),
        ((packed, (4, 1), (384, 384)), {"batch": 2, "dtype": jnp.float16}),
        ((window, (2, 2), (512, 512)), {}),
        ((anything, (4, 2), (256, 384)), {"batch": 2}),
        ((some_rows_empty, (2, 2), (256, 640)), {"head_dim": 128}),
    ],
)
def test_gradients_are_those_of_the_reference_in_more_cases(case, more):
    assert_gradients_are_right(*case, **more)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [mosaic_gpu_dq, mosaic_gpu_dkv])
def test_warpgroups_do_not_race(kernel, monkeypatch):
    watched = functools.partial(mosaic_gpu_portability.gpu_kernel, detect_races=True)
    monkeypatch.setattr(kernel, "gpu_kernel", watched)
    arguments, mask, _ = problem(causal, (2, 1), (256, 256))
    ranges = key_block_ranges(mask, 256, query_block=kernel.QUERY_BLOCK, key_block=kernel.KEY_BLOCK)
    if kernel is mosaic_gpu_dq:
        run = kernel.query_gradient
    else:
        run, ranges = kernel.key_value_gradients, query_block_ranges(ranges, 2)
    results = run(*arguments, jnp.stack(ranges, axis=-1), scale=0.1, interpret=True)
    assert all(np.all(np.isfinite(np.float32(x))) for x in jax.tree.leaves(results))
    assert not mosaic_gpu_portability.races_found()


def kernel_report(kernel, head_dim, dtype):
    pytest.importorskip("jax_plugins.xla_cuda13")
    # Shapes of no other test: a process hears of a kernel once.
    B, N, K, T, S = 1, 6, 2, 384, 640
    query, key = (
        jax.ShapeDtypeStruct((B, heads, length, head_dim), dtype)
        for heads, length in ((N, T), (K, S))
    )
    numbers = jax.ShapeDtypeStruct((B, N, T), jnp.float32)
    bounds = jax.ShapeDtypeStruct((B, T), jnp.int32)
    if kernel is mosaic_gpu_dq:
        run, blocks = kernel.query_gradient, T // kernel.QUERY_BLOCK
    else:
        run, blocks = kernel.key_value_gradients, S // kernel.KEY_BLOCK
    ranges = jax.ShapeDtypeStruct((B, blocks, 4), jnp.int32)
    run = functools.partial(run, scale=0.1, interpret=False)
    arguments = query, key, key, query, numbers, numbers, bounds, bounds, ranges
    (report,) = compile_for_gpu(run, *arguments).kernels
    return report


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("kernel", [mosaic_gpu_dq, mosaic_gpu_dkv])
def test_kernels_keep_their_registers_and_their_products_in_flight(kernel, head_dim, dtype):
    report = kernel_report(kernel, head_dim, dtype)
    assert report.spill_bytes == 0
    # ptxas warns where it cannot keep a product in flight.
    assert report.warnings == ()
    assert report.shared_memory_bytes <= SHARED_MEMORY
    # Three warpgroups, at launch.
    assert 3 * 128 * report.registers <= 65536
    # Tiles with mask and without. 16 numbers of the contracted dimension at once: two products over
    # the head, and one over the keys of a tile, or two over its queries.
    over_head, over_tile = head_dim // 16, 128 // 16
    assert report.count("wgmma.mma_async") == 2 * (2 * over_head + over_tile)
    # In either loop the second of two products runs while the first one's result is worked on.
    assert report.ptx.count("wgmma.wait_group.sync.aligned \t1;") == 2
    # Two operands that stay, two that come in a ring, and one result at least.
    assert report.count("cp.async.bulk.tensor") >= 5
