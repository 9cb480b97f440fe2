"""Which blocks of keys a block of queries has to visit, and the other way round.

A kernel works on tiles: a block of queries against a block of keys. From the intervals of
`mask.py` it needs to know which tiles hold nothing visible and are skipped, and which are visible
as a whole and need no mask arithmetic. For an interval mask the blocks of keys that one block of
queries touches lie in one range, and those it sees as a whole in one range inside of it:

    first          whole_first             whole_end        end
      |  some keys    |    all keys seen       |  some keys   |

All of it is computed from T numbers, never from T * S. Rows that see nothing (padding) count for
neither: what a kernel computes for them in a wholly visible tile is to be thrown away.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.mask import IntervalMask


class BlockRanges(NamedTuple):
    """Blocks to visit for each block, int32 `[B, blocks]` each (or scalars, of one block).

    Visit `first <= j < end`; of these `whole_first <= j < whole_end` are wholly visible. Where
    nothing is to be visited all four are equal; where nothing is whole, its bounds are `end`.
    """

    first: jax.Array
    whole_first: jax.Array
    whole_end: jax.Array
    end: jax.Array

    @property
    def count(self) -> jax.Array:
        """How many blocks to visit."""
        return self.end - self.first

    @property
    def partial_count(self) -> jax.Array:
        """How many of them need the mask."""
        return self.count - (self.whole_end - self.whole_first)

    def visited(self, visit: jax.Array) -> jax.Array:
        """The block to visit at turn `visit`: those that need the mask come first, then the others.

        In this order a kernel has two loops and not three, and a causal mask needs only one visit
        with mask arithmetic, before the loop.
        """
        before = self.whole_first - self.first
        after = self.whole_end - before
        whole = self.whole_first - self.partial_count
        offset = jnp.where(visit < before, self.first, after)
        return visit + jnp.where(visit < self.partial_count, offset, whole)


def key_block_ranges(
    mask: IntervalMask, num_keys: int, *, query_block: int, key_block: int
) -> BlockRanges:
    """For each block of `query_block` queries the blocks of `key_block` keys that it visits.

    Args:
      mask: intervals `[B, T]`; T need not be a multiple of the block, nor `num_keys` of its.
      num_keys: S; what intervals hold beyond it, or before 0, is not there.
    """
    start = _in_blocks(jnp.maximum(mask.key_start, 0), query_block)
    end = _in_blocks(jnp.minimum(mask.key_end, num_keys), query_block)
    seen = end > start
    first = jnp.min(jnp.where(seen, start, num_keys), axis=-1) // key_block
    last = -(-jnp.max(jnp.where(seen, end, 0), axis=-1) // key_block)
    whole_first = -(-jnp.max(jnp.where(seen, start, 0), axis=-1) // key_block)
    whole_end = jnp.min(jnp.where(seen, end, num_keys), axis=-1) // key_block
    return _ranges(first, whole_first, whole_end, last)


def query_block_ranges(ranges: BlockRanges, num_key_blocks: int) -> BlockRanges:
    """The same tiles from the other side: for each block of keys the blocks of queries.

    The blocks of queries that see a block of keys lie in one range for masks that move on with the
    queries (causal, packed, windows). For any other the range covers them, with tiles between that
    hold nothing, and of several runs of wholly visible tiles the first is named.

    Args:
      ranges: of `key_block_ranges`, `[B, query blocks]`.

    Returns:
      `[B, num_key_blocks]`, over blocks of queries.
    """
    num_query_blocks = ranges.first.shape[1]
    key_blocks = jnp.arange(num_key_blocks, dtype=jnp.int32)[:, None]
    query_blocks = jnp.arange(num_query_blocks, dtype=jnp.int32)

    def between(low: jax.Array, high: jax.Array) -> jax.Array:
        """bool `[B, key blocks, query blocks]`."""
        return (low[:, None] <= key_blocks) & (key_blocks < high[:, None])

    visited = between(ranges.first, ranges.end)
    whole = between(ranges.whole_first, ranges.whole_end)
    first = jnp.min(jnp.where(visited, query_blocks, num_query_blocks), axis=-1)
    end = jnp.max(jnp.where(visited, query_blocks + 1, 0), axis=-1)
    whole_first = jnp.min(jnp.where(whole, query_blocks, num_query_blocks), axis=-1)
    stops = ~whole & (query_blocks >= whole_first[..., None])
    whole_end = jnp.min(jnp.where(stops, query_blocks, num_query_blocks), axis=-1)
    return _ranges(first, whole_first, whole_end, end)


def _in_blocks(x: jax.Array, block: int) -> jax.Array:
    """`[B, T]` -> `[B, blocks, block]`; the intervals of the padding are empty."""
    x = jnp.pad(x.astype(jnp.int32), ((0, 0), (0, -x.shape[1] % block)))
    return x.reshape(x.shape[0], -1, block)


def _ranges(first, whole_first, whole_end, end) -> BlockRanges:
    end = jnp.maximum(first, end)
    whole_first, whole_end = jnp.maximum(whole_first, first), jnp.minimum(whole_end, end)
    nothing = whole_end <= whole_first
    whole_first, whole_end = (jnp.where(nothing, end, x) for x in (whole_first, whole_end))
    return BlockRanges(first, whole_first, whole_end, end)
