"""Our Hopper FP8 product, interpreted on a CPU, against numpy's of the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import InputError
from llama_jax.kernels import mosaic_gpu_portability
from llama_jax.kernels.matmul import fp8_gemm_gpu
from llama_jax.kernels.matmul.fp8_gemm_gpu import FAST, PROMOTED, fp8_gemm
from llama_jax.quantization.fp8_training import quantized_matmul
from llama_jax.quantization.number_formats import E4M3
from llama_jax.quantization.scaled_product import emulate, mosaic_gpu
from llama_jax.quantization.training_recipes import RECIPES


def operands(M, N, K):
    keys = jax.random.split(jax.random.key(M + N + K), 4)
    left = jax.random.normal(keys[0], (M, K)).astype(E4M3)
    right = jax.random.normal(keys[1], (N, K)).astype(E4M3)
    scales = [
        jnp.exp(jax.random.normal(key, (n,))) for key, n in zip(keys[2:], (M, N), strict=True)
    ]
    return left, scales[0], right, scales[1]


def expected(left, row_scale, right, column_scale):
    product = np.float64(left) @ np.float64(right).T
    return product * np.float64(row_scale)[:, None] * np.float64(column_scale)


@pytest.mark.parametrize(
    "shape, tile, out_dtype, num_blocks",
    [
        # Three rows of tiles, the last padded, over two blocks: one block goes on to a second tile.
        ((300, 128, 256), PROMOTED, jnp.bfloat16, 2),
        # More terms than the ring of six stages holds, and two columns.
        ((128, 256, 1024), PROMOTED, jnp.float32, 1),
        ((5, 256, 128), FAST, jnp.float32, 1),
    ],
    ids=str,
)
def test_equals_numpy(shape, tile, out_dtype, num_blocks):
    arguments = operands(*shape)
    result = fp8_gemm(
        *arguments, out_dtype=out_dtype, tile=tile, num_blocks=num_blocks, interpret=True
    )
    wanted = expected(*arguments)
    assert result.dtype == out_dtype and result.shape == wanted.shape
    # Float32 sums of exact products; then one rounding to the dtype.
    tolerance = 2**-8 if out_dtype == jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(
        np.float64(result), wanted, rtol=tolerance, atol=1e-6 * np.max(np.abs(wanted))
    )


def test_warpgroups_do_not_race(monkeypatch):
    watched = functools.partial(mosaic_gpu_portability.gpu_kernel, detect_races=True)
    monkeypatch.setattr(fp8_gemm_gpu, "gpu_kernel", watched)
    arguments = operands(256, 128, 256)
    result = fp8_gemm(*arguments, num_blocks=1, interpret=True)
    assert np.all(np.isfinite(np.float32(result)))
    assert not mosaic_gpu_portability.races_found()


def test_every_tile_is_taken_once_whatever_the_grid():
    for grid in ((1, 1), (3, 5), (8, 4), (19, 2), (16, 7)):
        tiles = [
            tuple(map(int, fp8_gemm_gpu._tile_of(index, grid)))
            for index in range(grid[0] * grid[1])
        ]
        assert sorted(tiles) == [
            (row, column) for row in range(grid[0]) for column in range(grid[1])
        ]


def test_a_layer_of_training_is_that_of_emulation():
    x = jax.random.normal(jax.random.key(0), (2, 64, 128), jnp.bfloat16)
    weight = jax.random.normal(jax.random.key(1), (2, 64, 128)) / 10  # [heads, head dim, inputs]
    outer = jax.random.normal(jax.random.key(2), (2, 64, 2, 64), jnp.bfloat16)

    def products(implementation):
        matmul = quantized_matmul(RECIPES["fp8_rowwise"], implementation)
        y, pull_back = jax.vjp(matmul, x, weight)
        return y, *pull_back(outer)

    interpreted = functools.partial(mosaic_gpu, interpret=True)
    for got, wanted in zip(products(interpreted), products(emulate), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        # The same numbers, summed in float32 in other orders: one bfloat16 apart at most.
        tolerance = 2**-7 if got.dtype == jnp.bfloat16 else 1e-5
        np.testing.assert_allclose(np.float64(got), np.float64(wanted), rtol=tolerance, atol=1e-5)


def test_what_the_kernel_does_not_take_is_refused_with_what_to_choose():
    left, row_scale, right, column_scale = operands(8, 128, 128)
    with pytest.raises(InputError, match="not int8 with float8_e4m3fn: choose"):
        fp8_gemm(left.astype(jnp.int8), row_scale, right, column_scale)
    with pytest.raises(InputError, match="N a multiple of 256 and K of 128"):
        fp8_gemm(left, row_scale, right, column_scale, tile=FAST)
    with pytest.raises(InputError, match=r"\(8, 100\).*choose implementation xla"):
        fp8_gemm(left[:, :100], row_scale, right[:, :100], column_scale)
    with pytest.raises(InputError, match="bfloat16 or float32, not float16"):
        fp8_gemm(left, row_scale, right, column_scale, out_dtype=jnp.float16)
