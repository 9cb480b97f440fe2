"""Ranges of blocks against the dense mask that they stand for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.kernels.attention.block_ranges import (
    BlockRanges,
    key_block_ranges,
    query_block_ranges,
)
from llama_jax.kernels.attention.mask import IntervalMask, causal_mask, packed_mask


def dense_tiles(mask, num_keys, query_block, key_block):
    """What each tile holds, bool `[B, query blocks, key blocks]`: anything seen; all of it seen.

    Rows that see nothing are no part of a tile, and neither is what lies outside of T and S.
    """
    start, end = np.asarray(mask.key_start), np.asarray(mask.key_end)
    slots = np.arange(num_keys)
    visible = (slots >= start[..., None]) & (slots < end[..., None])
    B, T, S = visible.shape
    blocks = -(-T // query_block), -(-S // key_block)
    some, whole = np.zeros((2, B, *blocks), bool)
    for b, i, j in np.ndindex(B, *blocks):
        columns = slice(j * key_block, (j + 1) * key_block)
        rows = visible[b, i * query_block : (i + 1) * query_block]
        tile = rows[rows.any(axis=1), columns]
        some[b, i, j] = tile.any()
        whole[b, i, j] = tile.size and tile.all() and (j + 1) * key_block <= S
    return some, whole


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def both_ranges(mask, num_keys, query_block, key_block):
    """The ranges of blocks of queries, and those of blocks of keys."""
    ranges = key_block_ranges(mask, num_keys, query_block=query_block, key_block=key_block)
    return ranges, query_block_ranges(ranges, -(-num_keys // key_block))


def in_range(first, end, num_blocks):
    """bool `[B, blocks, num_blocks]` of `first <= index < end`."""
    index = np.arange(num_blocks)
    return (index >= np.asarray(first)[..., None]) & (index < np.asarray(end)[..., None])


def assert_well_formed(ranges, num_blocks):
    first, whole_first, whole_end, end = map(np.asarray, ranges)
    assert (first <= whole_first).all() and (whole_first <= whole_end).all()
    assert (whole_end <= end).all() and (end[end > first] <= num_blocks).all()
    assert (whole_first == end)[whole_first == whole_end].all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.sampled_from([(37, 41), (3, 40), (32, 2)]),
    blocks=st.sampled_from([(8, 8), (8, 4)]),
    spread=st.sampled_from([3, 50]),
)
def test_any_intervals_visit_what_they_touch_and_leave_unmasked_what_they_see_whole(
    seed, lengths, blocks, spread
):
    (T, S), (query_block, key_block) = lengths, blocks
    rng = np.random.default_rng(seed)
    # Neighbours are alike, as in real masks; some are empty, and some reach beyond the keys.
    start = np.sort(rng.integers(-2, S + 2, (2, T)), axis=1)
    mask = IntervalMask(jnp.asarray(start), jnp.asarray(start + rng.integers(-3, spread, (2, T))))
    some, whole = dense_tiles(mask, S, query_block, key_block)
    ranges, reverse = both_ranges(mask, S, query_block, key_block)
    assert_well_formed(ranges, some.shape[2])
    visited = in_range(ranges.first, ranges.end, some.shape[2])
    assert (visited | ~some).all()
    assert (some.any(axis=2) == visited.any(axis=2)).all()
    # The outermost blocks of a range are touched.
    for b, i in zip(*np.nonzero(visited.any(axis=2)), strict=True):
        assert some[b, i, ranges.first[b, i]] and some[b, i, ranges.end[b, i] - 1]
    np.testing.assert_array_equal(
        in_range(ranges.whole_first, ranges.whole_end, some.shape[2]), whole
    )

    assert_well_formed(reverse, some.shape[1])
    assert (in_range(reverse.first, reverse.end, some.shape[1]) | ~some.swapaxes(1, 2)).all()
    reverse_whole = in_range(reverse.whole_first, reverse.whole_end, some.shape[1])
    assert (whole.swapaxes(1, 2) | ~reverse_whole).all()
    assert (reverse_whole.any(axis=2) == whole.any(axis=1)).all()


@pytest.mark.parametrize("segments", [[40], [1] * 7 + [9, 24], [13, 3, 24]], ids=str)
def test_packed_documents_visit_exactly_the_tiles_that_hold_something(segments):
    ids = jnp.asarray(np.repeat(np.arange(len(segments)), segments))[None]
    mask = packed_mask(ids)
    some, whole = dense_tiles(mask, 40, 8, 4)
    ranges, reverse = both_ranges(mask, 40, 8, 4)
    np.testing.assert_array_equal(in_range(ranges.first, ranges.end, 10), some)
    np.testing.assert_array_equal(in_range(reverse.first, reverse.end, 5), some.swapaxes(1, 2))
    np.testing.assert_array_equal(
        in_range(reverse.whole_first, reverse.whole_end, 5), whole.swapaxes(1, 2)
    )


def test_a_causal_mask_leaves_one_block_on_the_diagonal_to_mask():
    ranges = key_block_ranges(causal_mask(1, 32), 32, query_block=8, key_block=8)
    assert ranges.count.tolist() == [[1, 2, 3, 4]]
    assert ranges.partial_count.tolist() == [[1, 1, 1, 1]]


@given(bounds=st.lists(st.integers(0, 12), min_size=4, max_size=4).map(sorted))
def test_every_block_is_visited_once_and_those_to_mask_first(bounds):
    first, whole_first, whole_end, end = bounds
    if whole_first == whole_end:
        whole_first = whole_end = end
    ranges = BlockRanges(*map(jnp.int32, (first, whole_first, whole_end, end)))
    # As many turns for all, so that all are computed by one program.
    order = jax.jit(BlockRanges.visited)(ranges, jnp.arange(12)).tolist()[: end - first]
    whole = list(range(whole_first, whole_end))
    assert order[int(ranges.partial_count) :] == whole
    assert sorted(order) == list(range(first, end))
