"""What the kernels of `mosaic_gpu.py` share: sizes of a tile, registers, and the ring of keys."""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.kernels.attention.block_ranges import BlockRanges

# Rows of a warpgroup: those of a WGMMA.
ROWS = 64
WARPGROUPS = 2
QUERY_BLOCK = ROWS * WARPGROUPS
KEY_BLOCK = 128
STAGES = 2
# Registers of a thread. A multiprocessor has 65536: 128 * (2 * 240 + 24) = 64512.
COMPUTE_REGISTERS = 240
LOAD_REGISTERS = 24

LOG2_E = math.log2(math.e)
MATRIX = plgpu.Layout.WGMMA
PER_ROW = plgpu.Layout.WGMMA.reduce(1)


def load_visited(
    visits: BlockRanges, num_visits: Any, head: tuple[Any, Any], *arrays: tuple[Any, Any, Any, Any]
) -> None:
    """Has the TMA bring the blocks of keys that are visited, in a ring of `STAGES` slots.

    Args:
      visits: scalars, of one block of queries.
      num_visits: their count.
      head: of keys, with the row of the batch before it.
      arrays: for keys and for values the array `[B, K, S, H]` in global memory, its ring in shared
        memory, and for each slot the barriers that it is free and that it is ready.
    """

    def load_block(visit, _):
        slot = lax.rem(visit, STAGES)

        def fill(source, ring, free, ready):
            @pl.when(visit >= STAGES)
            def wait_for_the_slot():
                plgpu.barrier_wait(free.at[slot])

            @pl.when(visit < num_visits)
            def copy():
                keys = pl.ds(visits.visited(visit) * KEY_BLOCK, KEY_BLOCK)
                plgpu.copy_gmem_to_smem(source.at[*head, keys], ring.at[slot], ready.at[slot])

        for array in arrays:
            fill(*array)

    # The last rounds only wait, until what is in the ring has been read: no arrival at a barrier is
    # left over, so that the interpreter would report one that is missing.
    lax.fori_loop(0, jnp.where(num_visits > 0, num_visits + STAGES, 0), load_block, None)
