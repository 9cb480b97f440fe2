"""Row-wise scaled FP8 matrix product for Hopper, in Mosaic GPU.

    out[m, n] = row_scale[m] * column_scale[n] * sum_k left[m, k] * right[n, k]

XLA has no way to give cuBLASLt a scale a row: it multiplies a float32 product in a second kernel,
ten bytes of memory traffic for each result of two. Here the scales are applied to the sums while
they are in registers.

A block is three warpgroups on one streaming multiprocessor. One asks the TMA for tiles `[128, 128]`
of both operands, in a ring of shared memory; the other two multiply 64 rows each with WGMMA. Hopper
keeps about 14 bits of a sum of FP8 products (arXiv 2412.19437, section 3.3.2), so with `PROMOTED`
the sum of every 128 terms is added to a float32 one in ordinary registers, as DeepGEMM does; while
one warpgroup adds, the other multiplies. `FAST` leaves the whole sum to the tensor cores, with a
tile twice as wide: a quarter less traffic between the L2 cache and shared memory.

Blocks stay for the whole product and take one tile of results after another, the loads of the next
running while the last is written. Neighbouring blocks work on neighbouring tiles (a group of rows,
one column of tiles after another), so that what they load is in the L2 cache.

Operands must be K-major, contiguous in what is summed over: FP8 WGMMA has no other form. Not yet
run on a GPU: interpreted on CPUs, and compiled for sm_90a without spills.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.errors import InputError
from llama_jax.kernels.mosaic_gpu_portability import (
    SWIZZLE_BYTES,
    Instructions,
    gpu_kernel,
    swizzled,
)
from llama_jax.quantization.number_formats import E4M3

# Rows of 128 bytes: the widest that the TMA swizzles.
TILE_K = 128
# Streaming multiprocessors of an H100 SXM and of an H200.
NUM_BLOCKS = 132
# Tiles of rows in a group. 8 x 128 rows and the columns at work share an L2 cache of 50 MB.
GROUP = 8
_WARPGROUPS = 2  # that multiply
_SHARED_MEMORY = 227 * 1024  # of a block at most, CUDA programming guide, compute capability 9.0


@dataclass(frozen=True)
class GemmTile:
    """What a block computes at once.

    Attributes:
      rows: of results, 64 for each of two warpgroups.
      columns: of results.
      promoted: every `TILE_K` terms are summed up in float32.
    """

    rows: int
    columns: int
    promoted: bool

    @property
    def num_stages(self) -> int:
        """How many tiles of operands fit beside the scales and a strip of results."""
        results = self.rows * SWIZZLE_BYTES
        return (_SHARED_MEMORY - 3072 - results) // ((self.rows + self.columns) * TILE_K)


PROMOTED = GemmTile(128, 128, promoted=True)
FAST = GemmTile(128, 256, promoted=False)


def fp8_gemm(
    left: jax.Array,
    row_scale: jax.Array,
    right: jax.Array,
    column_scale: jax.Array,
    *,
    out_dtype: jnp.dtype = jnp.bfloat16,
    tile: GemmTile = PROMOTED,
    num_blocks: int = NUM_BLOCKS,
    interpret: bool = False,
) -> jax.Array:
    """`(left * row_scale[:, None]) @ (right * column_scale[:, None]).T`

    Args:
      left: float8_e4m3fn `[M, K]`, any M: rows are padded to a multiple of the tile's, which costs
        a copy where there are some to add.
      row_scale: float32 `[M]`.
      right: float8_e4m3fn `[N, K]`, N a multiple of the tile's columns and K of 128.
      column_scale: float32 `[N]`.
      out_dtype: bfloat16 or float32.
      tile: `PROMOTED` or `FAST`.
      num_blocks: multiprocessors of the device.
      interpret: run on the CPU.

    Returns:
      `[M, N]` in `out_dtype`.

    Raises:
      InputError: shapes or dtypes that the kernel does not take.
    """
    _check(left, right, out_dtype, tile)
    (M, K), N = left.shape, right.shape[0]
    padding = -M % tile.rows
    left = jnp.pad(left, ((0, padding), (0, 0)))
    row_scale = jnp.pad(row_scale, (0, padding))
    kernel = _kernel(M + padding, N, K, jnp.dtype(out_dtype), tile, num_blocks, interpret)
    return kernel(left, row_scale, right, column_scale)[:M]


def _check(left, right, out_dtype, tile: GemmTile) -> None:
    (_, K), (N, other_K) = left.shape, right.shape
    if left.dtype != E4M3 or right.dtype != E4M3:
        raise InputError(
            f"mosaic_gpu multiplies float8_e4m3fn, not {left.dtype} with {right.dtype}: "
            "choose another implementation, or fp8_rowwise"
        )
    if K != other_K or K % TILE_K or N % tile.columns:
        raise InputError(
            f"mosaic_gpu multiplies [M, K] with [N, K] for N a multiple of {tile.columns} and K of "
            f"{TILE_K}, not {left.shape} with {right.shape}: choose implementation xla"
        )
    if out_dtype not in (jnp.bfloat16, jnp.float32):
        raise InputError(f"mosaic_gpu writes bfloat16 or float32, not {jnp.dtype(out_dtype)}")


def _kernel(M, N, K, out_dtype, tile: GemmTile, num_blocks, interpret):
    instructions = Instructions(interpret)
    num_steps = K // TILE_K
    grid = (M // tile.rows, N // tile.columns)
    num_tiles = math.prod(grid)
    num_blocks = min(num_blocks, num_tiles)
    num_stages = tile.num_stages
    share = tile.rows // _WARPGROUPS
    strip = SWIZZLE_BYTES // out_dtype.itemsize  # columns of results that are written at once

    def body(left, row_scale, right, column_scale, out, *scratch):
        lefts, rights, results, of_rows, of_columns, produced, consumed, scaled = scratch
        block, warpgroup = lax.axis_index("block"), lax.axis_index("warpgroup")
        tiles_here = (num_tiles - block + num_blocks - 1) // num_blocks

        def corner(turn):
            row, column = _tile_of(block + turn * num_blocks, grid)
            return row * tile.rows, column * tile.columns

        @pl.when(warpgroup == _WARPGROUPS)
        def _load():
            plgpu.set_max_registers(40, action="decrease")

            def load_tile(turn, _):
                row, column = corner(turn)

                def load_step(step, _):
                    count = turn * num_steps + step
                    stage = lax.rem(count, num_stages)

                    @pl.when(count >= num_stages)
                    def _():
                        plgpu.barrier_wait(consumed.at[stage])

                    terms = pl.ds(step * TILE_K, TILE_K)
                    arrived = produced.at[stage]
                    plgpu.copy_gmem_to_smem(
                        left.at[pl.ds(row, tile.rows), terms], lefts.at[stage], arrived
                    )
                    plgpu.copy_gmem_to_smem(
                        right.at[pl.ds(column, tile.columns), terms], rights.at[stage], arrived
                    )

                lax.fori_loop(0, num_steps, load_step, None)

            lax.fori_loop(0, tiles_here, load_tile, None)
            loaded = tiles_here * num_steps

            def drain(count, _):
                plgpu.barrier_wait(consumed.at[lax.rem(count, num_stages)])

            # A block does not end before all that was loaded has been used.
            lax.fori_loop(jnp.maximum(loaded, num_stages), loaded + num_stages, drain, None)

        @pl.when(warpgroup < _WARPGROUPS)
        def _multiply():
            plgpu.set_max_registers(232, action="increase")
            own_rows = pl.ds(warpgroup * share, share)

            def multiply_tile(turn, _):
                row, column = corner(turn)
                own = pl.ds(row + warpgroup * share, share)
                columns = pl.ds(column, tile.columns)
                here = scaled.at[warpgroup]
                plgpu.copy_gmem_to_smem(row_scale.at[own], of_rows.at[warpgroup], here)
                plgpu.copy_gmem_to_smem(column_scale.at[columns], of_columns.at[warpgroup], here)

                def operands(step):
                    stage = lax.rem(turn * num_steps + step, num_stages)
                    plgpu.barrier_wait(produced.at[stage])
                    return stage, lefts.at[stage, own_rows], rights.at[stage]

                def release(stage):
                    plgpu.barrier_arrive(consumed.at[stage])

                sums = (_promoted_sums if tile.promoted or interpret else _hardware_sums)(
                    instructions, num_steps, (share, tile.columns), operands, release, num_stages,
                    turn * num_steps,
                )  # fmt: skip
                plgpu.barrier_wait(here)
                layout = plgpu.Layout.WGMMA
                factors = instructions.load(of_rows.at[warpgroup], layout=layout.reduce(1))
                sums = sums * lax.broadcast_in_dim(factors, sums.shape, [0])
                factors = instructions.load(of_columns.at[warpgroup], layout=layout.reduce(0))
                sums = sums * lax.broadcast_in_dim(factors, sums.shape, [1])
                for first in range(0, tile.columns, strip):
                    # The strip before has left shared memory.
                    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                    results[warpgroup] = sums[:, first : first + strip].astype(out_dtype)
                    plgpu.commit_smem()
                    plgpu.copy_smem_to_gmem(
                        results.at[warpgroup], out.at[own, pl.ds(column + first, strip)]
                    )

            lax.fori_loop(0, tiles_here, multiply_tile, None)
            plgpu.wait_smem_to_gmem(0)

    return gpu_kernel(
        body,
        interpret=interpret,
        out_type=jax.ShapeDtypeStruct((M, N), out_dtype),
        scratch_types=[
            swizzled(num_stages, tile.rows, TILE_K, dtype=E4M3),
            swizzled(num_stages, tile.columns, TILE_K, dtype=E4M3),
            swizzled(_WARPGROUPS, share, strip, dtype=out_dtype),
            plgpu.SMEM((_WARPGROUPS, share), jnp.float32),
            plgpu.SMEM((_WARPGROUPS, tile.columns), jnp.float32),
            plgpu.Barrier(num_arrivals=2, num_barriers=num_stages),
            plgpu.Barrier(num_arrivals=_WARPGROUPS, num_barriers=num_stages),
            plgpu.Barrier(num_arrivals=2, num_barriers=_WARPGROUPS),
        ],
        grid=(num_blocks,),
        grid_names=("block",),
        num_threads=_WARPGROUPS + 1,
        thread_name="warpgroup",
    )


def _tile_of(index, grid: tuple[int, int]):
    """The row and column of tile `index`: groups of `GROUP` rows, column by column within each."""
    num_rows, num_columns = grid
    group = index // (GROUP * num_columns)
    first = group * GROUP
    height = jnp.minimum(num_rows - first, GROUP)
    within = index - first * num_columns
    return first + lax.rem(within, height), within // height


def _promoted_sums(
    instructions: Instructions, num_steps, shape, operands, release, num_stages, first
):
    """float32 `shape`: sums of `TILE_K` terms by the tensor cores, added up in registers."""

    def step(index, total):
        stage, left, right = operands(index)
        total = total + instructions.product(left, right, transpose_right=True)
        release(stage)
        return total

    start = instructions.full(shape, 0.0, layout=plgpu.Layout.WGMMA)
    return lax.fori_loop(0, num_steps, step, start)


def _hardware_sums(
    instructions: Instructions, num_steps, shape, operands, release, num_stages, first
):
    """float32 `shape`, summed up by the tensor cores, one product in flight behind another."""

    def accumulate(accumulator):
        def step(index, _):
            _, left, right = operands(index)
            plgpu.wgmma(accumulator, left, right.transpose((1, 0)))
            plgpu.wgmma_wait(1)  # the one before has read its operands

            @pl.when(index > 0)
            def _():
                release(lax.rem(first + index - 1, num_stages))

        lax.fori_loop(0, num_steps, step, None)
        plgpu.wgmma_wait(0)
        release(lax.rem(first + num_steps - 1, num_stages))
        return accumulator[...]

    return pl.run_scoped(accumulate, plgpu.ACC(shape, jnp.float32))
