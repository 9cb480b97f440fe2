"""The paged reference against attention over the same keys and values in one piece."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.paged_attention import reference

from .paged_cases import contiguous_attention, random_rows

# A page, its last slot, the first of the next, several pages, one token, none.
LENGTHS = [16, 15, 17, 61, 1, 0]
SCALE = 0.2
pytestmark = pytest.mark.usefixtures("quick_compilation")
attend_pages = jax.jit(functools.partial(reference.paged_attention, scale=SCALE))


@pytest.mark.parametrize("num_queries", [1, 4])
@pytest.mark.parametrize("heads", [(2, 2), (16, 2)])
def test_pages_give_what_one_piece_gives(num_queries, heads):
    case = dict(num_heads=heads[0], num_kv_heads=heads[1], num_queries=num_queries)
    query, pages, table, lengths, key, value = random_rows(
        LENGTHS, page_size=16, head_dim=8, dtype=jnp.float32, **case
    )
    paged = attend_pages(query, pages, table, lengths)
    expected = contiguous_attention(query, key, value, lengths, scale=SCALE)
    # Both in float32; sums of 61 terms in another order.
    np.testing.assert_allclose(paged, expected, atol=2e-6)
    assert not np.any(paged[-1])
    assert not np.any(paged[4, :, : num_queries - 1])


# bfloat16: the probabilities (2^-9), the inputs being the same, and the output (2^-9 of 4).
# int8 and e4m3: half a step of each value, of up to 4 (`test_pages.py`), and scores that are off by
# as much shift probabilities by a few percent.
@pytest.mark.parametrize(
    ("page_dtype", "error"),
    [(jnp.bfloat16, 0.015), (jnp.int8, 0.04), (jnp.float8_e4m3fn, 0.25)],
)
def test_narrow_pages_lose_little(page_dtype, error):
    query, pages, table, lengths, key, value = random_rows(
        LENGTHS, page_size=16, head_dim=32, num_heads=8, num_kv_heads=2, num_queries=2,
        page_dtype=page_dtype,
    )  # fmt: skip
    assert pages.pages.dtype == page_dtype
    paged = attend_pages(query, pages, table, lengths)
    expected = contiguous_attention(query, key, value, lengths, scale=SCALE)
    assert paged.dtype == jnp.bfloat16
    np.testing.assert_allclose(paged.astype(jnp.float32), expected, atol=error)
    # And the mean error, which a wrong scale would not pass.
    assert np.mean(np.abs(paged.astype(jnp.float32) - expected)) < error / 8
