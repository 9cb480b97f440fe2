"""The Hopper kernel, interpreted on the CPU, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.kernels.paged_attention import mosaic_gpu, reference

from .paged_cases import random_rows

SCALE = 0.1
pytestmark = pytest.mark.usefixtures("quick_compilation")


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


def both(lengths, *, num_parts=None, **case):
    query, pages, table, lengths, *_ = random_rows(lengths, **case)
    expected = jax.jit(functools.partial(reference.paged_attention, scale=SCALE))(
        query, pages, table, lengths
    )
    output = mosaic_gpu.paged_attention(
        query, pages, table, lengths, scale=SCALE, num_parts=num_parts, interpret=True
    )
    assert output.dtype == expected.dtype == query.dtype
    return np.asarray(output, np.float32), np.asarray(expected, np.float32)


# Probabilities and outputs are rounded to bfloat16 in both, once each, at most 2^-8 of the largest
# value (4) apart; float16 has three bits more.
@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        (dict(num_heads=4, num_kv_heads=1), 0.016),
        slow(dict(num_heads=2, num_kv_heads=2, num_queries=4), 0.016),
        slow(dict(num_heads=8, num_kv_heads=1, num_queries=3, head_dim=64, page_size=128), 0.016),
        slow(dict(num_heads=4, num_kv_heads=1, dtype=jnp.float16), 0.002),
        slow(dict(num_heads=4, num_kv_heads=1, page_dtype=jnp.int8), 0.016),
        (dict(num_heads=8, num_kv_heads=1, num_queries=2, page_dtype=jnp.float8_e4m3fn), 0.016),
        slow(dict(num_heads=2, num_kv_heads=2, head_dim=64, page_dtype=jnp.int8), 0.016),
    ],
    ids=["group4", "queries4", "heads64", "float16", "int8", "fp8", "int8-heads64"],
)
def test_the_kernel_agrees_with_the_reference(case, tolerance):
    # Four tiles and a bit, round the ring of three; one token; none.
    output, expected = both([258, 1, 0], num_parts=1, **case)
    np.testing.assert_allclose(output, expected, atol=tolerance)
    assert not np.any(output[2])


@pytest.mark.parametrize("case", [dict(), slow(dict(page_dtype=jnp.int8))])
def test_parts_of_lengths_at_a_page_boundary(case):
    # One tile or two, in three parts: some parts have none.
    output, expected = both([64, 63, 65], num_parts=3, num_heads=4, num_kv_heads=1, **case)
    np.testing.assert_allclose(output, expected, atol=0.016)


def test_parts_combine_to_the_whole():
    random = np.random.default_rng(0)
    scores = random.normal(size=(12, 5)).astype(np.float32) * 3
    values = random.normal(size=(12, 4)).astype(np.float32)

    def attend(scores, values):
        weights = np.exp2(scores)
        total = weights.sum(0)
        return np.einsum("sr,sh->hr", weights, values) / total, np.log2(total)

    parts = [attend(scores[rows], values[rows]) for rows in (slice(0, 5), slice(5, 12))]
    parts.append((np.zeros((4, 5), np.float32), np.full(5, -1e30, np.float32)))
    output, log2_total = (jnp.stack(x)[None, None] for x in zip(*parts, strict=True))
    combined = mosaic_gpu.combine_parts(output, log2_total)[0, 0]
    np.testing.assert_allclose(combined, attend(scores, values)[0], atol=1e-5)
    nothing = mosaic_gpu.combine_parts(output[:, :, 2:], log2_total[:, :, 2:])
    assert not np.any(nothing)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (dict(head_dim=32), "heads of 64 and 128"),
        (dict(page_size=16), "multiple of 64"),
        (dict(dtype=jnp.float32), "float32"),
        (dict(num_heads=36, num_queries=2), "64 queries"),
        (dict(num_heads=48, page_dtype=jnp.int8), "40 queries"),
    ],
)
def test_what_the_kernel_cannot_do_it_refuses(case, reason):
    case = dict(num_heads=4, num_kv_heads=1) | case
    query, pages, table, lengths, *_ = random_rows([3], **case)
    with pytest.raises(InputError, match=reason):
        mosaic_gpu.paged_attention(query, pages, table, lengths, scale=SCALE)
