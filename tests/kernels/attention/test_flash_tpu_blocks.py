"""Which blocks the TPU kernels visit, against the dense mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.kernels.attention.flash_tpu_blocks import (
    DEFAULT_SIZES,
    Sizes,
    choose_blocks,
    from_rows,
    in_segments,
    ranges,
    rows_of,
)
from llama_jax.kernels.attention.flash_tpu_tile import key_block
from llama_jax.kernels.attention.mask import IntervalMask

QUERIES, KEYS = 128, 128


def blocks_of(num_queries: int, num_keys: int):
    return choose_blocks(1, num_queries, num_keys, Sizes(QUERIES, KEYS, KEYS))


def random_mask(seed: int, num_queries: int, num_keys: int) -> IntervalMask:
    """Short intervals near each other, as masks have them, some empty, a block of them whole."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, num_keys, (2, num_queries)), axis=1)
    end = np.minimum(start + rng.integers(-20, 200, start.shape), num_keys)
    start[1, :QUERIES], end[1, :QUERIES] = 100, 600
    empty = rng.random((2, num_queries // QUERIES)) < 0.2
    empty[1, 0] = False
    end = np.where(np.repeat(empty, QUERIES, axis=1), start, end)
    return IntervalMask(jnp.asarray(start, jnp.int32), jnp.asarray(end, jnp.int32))


@pytest.mark.parametrize("seed", range(5))
def test_visited_are_the_blocks_between_what_intervals_touch(seed):
    T, S = 5 * QUERIES, 6 * KEYS
    mask = random_mask(seed, T, S)
    keys = np.arange(S)
    dense = (keys >= mask.key_start[..., None]) & (keys < mask.key_end[..., None])
    tiles = np.asarray(dense).reshape(2, 5, QUERIES, 6, KEYS)
    some, whole = tiles.any(axis=(2, 4)), tiles.all(axis=(2, 4))
    first, last, full_first, full_last = (
        np.asarray(x).reshape(2, 5, 1) for x in ranges(mask, blocks_of(T, S))
    )
    block = np.arange(6)
    visited = (block >= first) & (block < last)
    assert (visited | ~some).all()
    # Nothing outside of the first and the last that something touches.
    assert (visited.any(axis=2) == some.any(axis=2)).all()
    occupied = visited.any(axis=2)
    assert (some.argmax(axis=2) == visited.argmax(axis=2))[occupied].all()
    assert (some[..., ::-1].argmax(axis=2) == visited[..., ::-1].argmax(axis=2))[occupied].all()
    np.testing.assert_array_equal((block >= full_first) & (block < full_last) & visited, whole)
    assert whole.any()


def test_no_block_is_fetched_that_is_not_computed_next():
    """A turn after the last of a row waits with the first block of the next row."""
    blocks = blocks_of(3 * QUERIES, 4 * KEYS)
    first, last = np.array([0, 1, 3]), np.array([1, 3, 3])
    fetched = [
        [int(key_block(blocks, 0, i, j, jnp.asarray(first), jnp.asarray(last))) for j in range(4)]
        for i in range(3)
    ]
    assert fetched == [[0, 1, 1, 1], [1, 2, 3, 3], [0, 0, 0, 0]]


def test_a_stretch_of_keys_sees_its_part_of_the_intervals():
    mask = random_mask(0, 2 * QUERIES, 6 * KEYS)
    whole = ranges(mask, blocks_of(2 * QUERIES, 6 * KEYS))
    second_half = IntervalMask(mask.key_start - 3 * KEYS, mask.key_end - 3 * KEYS)
    part = ranges(second_half, blocks_of(2 * QUERIES, 3 * KEYS))
    touched = np.asarray(whole.last) > np.maximum(whole.first, 3)
    expected_first = np.where(touched, np.maximum(np.asarray(whole.first) - 3, 0), 0)
    np.testing.assert_array_equal(part.last > part.first, touched)
    np.testing.assert_array_equal(np.asarray(part.first), expected_first)


@pytest.mark.parametrize("keys", [1, 8192, 8193, 131072])
def test_stretches_hold_all_keys_and_fit_the_chip(keys):
    blocks = choose_blocks(4, 128, keys, DEFAULT_SIZES)
    segments, part = in_segments(blocks, 128)
    assert segments * part.num_key_blocks * part.keys >= keys
    assert part.num_key_blocks * part.keys <= 8192


@pytest.mark.parametrize("group", [1, 3, 4, 8, 16, 32])
def test_blocks_are_whole_vectors_and_cover_the_sequences(group):
    blocks = choose_blocks(group, 1000, 1100, DEFAULT_SIZES)
    assert blocks.queries % 128 == 0 and blocks.keys % blocks.compute_keys == 0
    assert blocks.num_query_blocks * blocks.queries >= 1000
    assert blocks.num_key_blocks * blocks.keys >= 1100
    assert blocks.rows <= max(DEFAULT_SIZES.rows, 128 * group)


def test_rows_of_a_block_are_heads_then_positions():
    blocks = choose_blocks(2, 256, 128, Sizes(256, 128, 128))
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 256))
    rows = rows_of(x, blocks)
    assert rows.shape == (1, 3, 2, 1, 256)
    np.testing.assert_array_equal(rows[0, 1, 1, 0], x[0, 1, :, 128:].reshape(-1))
    np.testing.assert_array_equal(from_rows(rows, blocks), x)
