"""Paged attention block by block: the reference's numbers, and a row's bits are its own affair.

The bits are compared on the CPU with all optimisations on, as the engine runs: they are what XLA's
products and sums do there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.paged_attention import chunked, reference
from llama_jax.kernels.paged_attention.case import case_of
from llama_jax.kernels.paged_attention.implementations import paged_attention_by_name
from llama_jax.kernels.paged_attention.pages import KVPages

from .paged_cases import random_rows

# A block is 128 tokens: less, exactly one, one more, several; one token, none.
LENGTHS = [100, 128, 129, 300, 1, 0]
SCALE = 0.2

attend = jax.jit(
    functools.partial(
        paged_attention_by_name("chunked", platform="cpu", device_kind="cpu"), scale=SCALE
    )
)
attend_on_accelerators = jax.jit(functools.partial(chunked.paged_attention, scale=SCALE))
attend_reference = jax.jit(functools.partial(reference.paged_attention, scale=SCALE))


def rows(lengths=LENGTHS, **case):
    """Query, pages, table, lengths."""
    sizes = dict(num_heads=6, num_kv_heads=2, head_dim=64, page_size=16, dtype=jnp.float32)
    return random_rows(lengths, **(sizes | case))[:4]


# float32: sums of 300 terms in another order. bfloat16: probabilities and outputs are rounded once
# each, 2^-9 of at most 4, and probabilities relative to another maximum.
@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        (dict(), 1e-6),
        (dict(num_queries=5), 1e-6),
        (dict(num_heads=2, head_dim=8), 1e-6),
        (dict(page_size=256), 1e-6),
        (dict(page_size=48, num_queries=2), 1e-6),
        (dict(page_dtype=jnp.int8, num_queries=2), 1e-6),
        (dict(page_dtype=jnp.float8_e4m3fn), 1e-6),
        (dict(dtype=jnp.bfloat16, num_queries=3), 0.016),
        (dict(dtype=jnp.bfloat16, page_dtype=jnp.int8), 0.016),
    ],
    ids=["one", "five", "one-head-each", "long-pages", "odd-pages", "int8", "fp8", "bfloat16",
         "bfloat16-int8"],
)  # fmt: skip
def test_blocks_give_what_the_reference_gives(case, tolerance):
    arguments = rows(**case)
    expected = np.asarray(attend_reference(*arguments), np.float32)
    for function in (attend, attend_on_accelerators):
        output = function(*arguments)
        assert output.dtype == arguments[0].dtype
        np.testing.assert_allclose(np.asarray(output, np.float32), expected, atol=tolerance)
        # Positions before the row's first token, and a row that is not in use.
        assert not np.any(output[-1])
        assert not np.any(output[-2, :, : arguments[0].shape[2] - 1])


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow)


CASES = [
    dict(num_heads=9, num_kv_heads=3),
    slow(dict(num_heads=2)),
    slow(dict(dtype=jnp.bfloat16)),
    dict(page_dtype=jnp.int8),
    slow(dict(num_heads=32, num_kv_heads=8, head_dim=128)),
]
IDS = ["float32", "one-head-each", "bfloat16", "int8", "llama31_8b"]


@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_row_has_the_same_bits_whatever_else_is_in_the_batch(case, num_queries):
    query, pages, table, lengths = rows(
        [*LENGTHS, 257, 5, 64, 128], num_queries=num_queries, **case
    )
    described = case_of(query, pages, platform="cpu", device_kind="cpu")
    assert chunked.options(described)["rows_at_once"] < len(lengths)  # several groups
    whole = np.asarray(attend(query, pages, table, lengths))
    order = np.random.default_rng(2).permutation(len(lengths))
    turned = attend(query[order], pages, table[order], lengths[order])
    np.testing.assert_array_equal(turned, whole[order])
    for row in range(len(lengths)):
        # Alone, in as many blocks as itself needs; and beside another, in a longer table.
        alone = attend(query[row : row + 1], pages, table[row : row + 1], lengths[row : row + 1])
        np.testing.assert_array_equal(alone[0], whole[row])
    wide = jnp.pad(table, ((0, 0), (0, 21)), constant_values=-1)
    pair = attend(query[:2], pages, wide[:2], lengths[:2])
    np.testing.assert_array_equal(pair, whole[:2])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_row_has_the_same_bits_on_whatever_pages(case):
    query, pages, table, lengths = rows(num_queries=2, **case)
    num_pages = pages.pages.shape[0]
    moved = np.random.default_rng(1).permutation(num_pages)  # page `old` goes to moved[old]
    elsewhere = jax.tree.map(lambda leaf: jnp.zeros_like(leaf).at[moved].set(leaf), pages)
    is_page = (table >= 0) & (table < num_pages)
    new_table = jnp.where(is_page, moved[jnp.clip(table, 0, num_pages - 1)], table)
    np.testing.assert_array_equal(
        attend(query, elsewhere, new_table, lengths), attend(query, pages, table, lengths)
    )


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_query_has_the_same_bits_alone_as_in_a_chunk(case):
    query, pages, table, lengths = rows([300, 190], num_queries=64, **case)
    chunk = np.asarray(attend(query, pages, table, lengths))
    for num_queries in (1, 3, 16):
        for first in (0, 21, 64 - num_queries):
            last = first + num_queries
            part = attend(query[:, :, first:last], pages, table, lengths - 64 + last)
            np.testing.assert_array_equal(part, chunk[:, :, first:last], str((num_queries, first)))


def test_tokens_of_a_row_behind_its_length_are_never_seen():
    query, pages, table, lengths = rows([40], page_size=64)
    assert np.isnan(pages.pages).any()
    output = attend(query, pages, table, lengths)
    clean = KVPages(jnp.nan_to_num(pages.pages), None)
    np.testing.assert_array_equal(output, attend(query, clean, table, lengths))
    assert np.isfinite(output).all()
