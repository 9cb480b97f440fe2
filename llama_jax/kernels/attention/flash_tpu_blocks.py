"""What the kernels of `flash_tpu.py` know of a mask before they run: which blocks meet.

A block of queries is `Blocks.queries` positions of the G heads that read one key head, so its rows
are (head, position) and a block of keys is fetched once for all of them. The ranges below go to
scalar memory: a kernel's index maps choose by them what is fetched, and blocks that no interval
touches are neither fetched nor computed. A block that lies whole in every interval of its rows
needs no mask. Letters as in `reference.py`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.kernels.attention.mask import IntervalMask

LANES = 128
# Numbers in a stretch of keys whose gradients fill at most 24 MiB: 8192 keys of 128.
SEGMENT_NUMBERS = 8192 * 128


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large blocks may be; multiples of 128.

    Of what was tried these cost the fewest cycles a score for forward and backward together, by the
    compiler's count for v5p and v6e (`tests/benchmarks/tpu_attention.py`).

    Attributes:
      rows: rows of scores in a block of queries.
      keys: keys fetched at once.
      compute_keys: keys computed at once; divides `keys`.
    """

    rows: int = 1024
    keys: int = 1024
    compute_keys: int = 512


DEFAULT_SIZES = Sizes()


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Attributes:
    group: G, query heads of a key head.
    queries: positions in a block of queries.
    keys: keys in a block of keys, fetched together.
    compute_keys: how many of them are computed at once.
    num_query_blocks, num_key_blocks: of the padded lengths.
    """

    group: int
    queries: int
    keys: int
    compute_keys: int
    num_query_blocks: int
    num_key_blocks: int

    @property
    def rows(self) -> int:
        """Rows of scores in a block of queries."""
        return self.group * self.queries


def choose_blocks(group: int, num_queries: int, num_keys: int, sizes: Sizes) -> Blocks:
    """Blocks no longer than the sequences; of queries at least 128, however many heads share a key.

    Both are whole vectors of 128 lanes: intervals, maxima and sums of a block's rows are moved
    between lanes and sublanes, 128 at a time.
    """
    block_queries = max(sizes.rows // group // LANES, 1) * LANES
    block_queries = min(block_queries, _up_to(num_queries, LANES))
    block_keys = min(sizes.keys, _up_to(num_keys, LANES))
    in_parts = block_keys % sizes.compute_keys == 0
    return Blocks(
        group=group,
        queries=block_queries,
        keys=block_keys,
        compute_keys=sizes.compute_keys if in_parts else block_keys,
        num_query_blocks=_up_to(num_queries, block_queries) // block_queries,
        num_key_blocks=_up_to(num_keys, block_keys) // block_keys,
    )


def in_segments(blocks: Blocks, head_dim: int) -> tuple[int, Blocks]:
    """Into how many stretches the keys are cut for the backward kernel, and the blocks of one.

    A stretch has its gradients in VMEM whole: float32 sums and results, of keys and of values.
    """
    longest = max(SEGMENT_NUMBERS // head_dim // blocks.keys, 1)
    segments = -(-blocks.num_key_blocks // longest)
    per_segment = -(-blocks.num_key_blocks // segments)
    return segments, dataclasses.replace(blocks, num_key_blocks=per_segment)


class Ranges(NamedTuple):
    """Which blocks of keys each block of queries meets; int32 `[B * blocks of queries]`.

    Attributes:
      first, last: the first block that any of its intervals touches, and one past the last; equal
        if there is none.
      full_first, full_last: the blocks that lie whole in all of its intervals.
    """

    first: jax.Array
    last: jax.Array
    full_first: jax.Array
    full_last: jax.Array

    @property
    def most(self) -> jax.Array:
        """Turns that the busiest block of queries takes, at least one: they begin and end a row."""
        return jnp.maximum(jnp.max(self.last - self.first), 1)


def ranges(mask: IntervalMask, blocks: Blocks) -> Ranges:
    """Ranges of a mask `[B, T]` whose T is whole blocks. What lies beyond the keys is left out."""
    start, end = (
        jnp.clip(x, 0, blocks.num_key_blocks * blocks.keys).reshape(
            x.shape[0], blocks.num_query_blocks, blocks.queries
        )
        for x in (mask.key_start, mask.key_end)
    )
    seen = end > start
    some = jnp.any(seen, axis=-1)
    first = jnp.min(jnp.where(seen, start, blocks.num_key_blocks * blocks.keys), axis=-1)
    last = -(-jnp.max(jnp.where(seen, end, 0), axis=-1) // blocks.keys)
    # An empty interval leaves nothing between the largest start and the smallest end.
    full_first = -(-jnp.max(start, axis=-1) // blocks.keys)
    full_last = jnp.min(end, axis=-1) // blocks.keys
    first, last = (jnp.where(some, x, 0) for x in (first // blocks.keys, last))
    return Ranges(*(x.astype(jnp.int32).reshape(-1) for x in (first, last, full_first, full_last)))


def rows_of(x: jax.Array, blocks: Blocks) -> jax.Array:
    """`[B, K, G, T]`, T whole blocks, as one vector for each block: `[B, K, blocks, 1, rows]`."""
    B, K, G, _ = x.shape
    x = x.reshape(B, K, G, blocks.num_query_blocks, blocks.queries)
    return jnp.moveaxis(x, 2, 3).reshape(B, K, blocks.num_query_blocks, 1, blocks.rows)


def from_rows(x: jax.Array, blocks: Blocks) -> jax.Array:
    """`[B, K, blocks, 1, rows]` as `[B, K, G, T]`."""
    B, K = x.shape[:2]
    x = x.reshape(B, K, blocks.num_query_blocks, blocks.group, blocks.queries)
    return jnp.moveaxis(x, 3, 2).reshape(B, K, blocks.group, -1)


def intervals_of(x: jax.Array, blocks: Blocks) -> jax.Array:
    """`[B, T]`, T whole blocks, as one vector for each block: `[B, blocks, 1, queries]`."""
    return x.reshape(x.shape[0], blocks.num_query_blocks, 1, blocks.queries)


def _up_to(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
