"""Rows to FP8 with a scale each, in one pass over memory: Mosaic GPU, for Hopper.

XLA makes two kernels of it (0.10.2 and 0.11, compiled for an H100): one reads a row for its largest
magnitude, the other reads it again to divide and cast, five bytes of traffic for each bfloat16.
Here a block of one warpgroup keeps its row in registers between the two: three bytes.

It pays for operands that are needed with one set of scales, which are those of
`fp8_rowwise_bf16_wgrad` and of FP8 inference. Where the same tensor is needed by rows and by
columns, as in `fp8_rowwise`, XLA casts both in its last pass and is not behind: three reads and two
writes either way. Not yet run on a GPU: interpreted on CPUs, compiled for sm_90a without spills.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from llama_jax.errors import InputError
from llama_jax.kernels.mosaic_gpu_portability import Instructions, gpu_kernel
from llama_jax.quantization.number_formats import E4M3, largest, magnitude, scale_of

_THREADS = 128
_VECTOR = 8  # elements that a thread loads at once: 16 bytes of bfloat16
# Elements of a row: all of them are in registers, at most 112 of a thread's.
MAX_COLUMNS = 14336
_ROW_MULTIPLE = _THREADS * _VECTOR


def takes_rows_of(columns: int, dtype: jnp.dtype) -> bool:
    """Whether the kernel quantises rows of so many columns of `dtype`."""
    return (
        columns % _ROW_MULTIPLE == 0
        and 0 < columns <= MAX_COLUMNS
        and dtype in (jnp.bfloat16, jnp.float32)
    )


def quantize_rows_gpu(
    x: jax.Array,
    *,
    bound: float | None = None,
    power_of_two: bool = False,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`number_formats.quantize_rows` to float8_e4m3fn over the last dimension.

    Args:
      x: bfloat16 or float32 `[..., K]`, K a multiple of 1024 up to `MAX_COLUMNS`.
      bound, power_of_two: as there.
      interpret: run on the CPU.

    Returns:
      float8_e4m3fn `[..., K]` and float32 `[...]`.

    Raises:
      InputError: another K or dtype.
    """
    *leading, K = x.shape
    if not takes_rows_of(K, x.dtype):
        raise InputError(
            f"rows of {K} {x.dtype} are not quantised by mosaic_gpu, which takes bfloat16 and "
            f"float32 and multiples of {_ROW_MULTIPLE} up to {MAX_COLUMNS}"
        )
    M = math.prod(leading)
    instructions = Instructions(interpret)
    layout = plgpu.Layout.WG_STRIDED((K,), vec_size=_VECTOR)

    def body(rows, values, scales):
        index = lax.axis_index("row")
        row = instructions.load(rows.at[index], layout=layout).astype(jnp.float32)
        amax = jnp.max(magnitude(row))
        scale = scale_of(amax, E4M3, bound=bound, power_of_two=power_of_two)
        limit = largest(E4M3)
        scaled = jnp.minimum(jnp.maximum(row / scale, -limit), limit)
        values[index] = scaled.astype(E4M3)
        scales[index] = scale

    kernel = gpu_kernel(
        body,
        interpret=interpret,
        out_type=(
            jax.ShapeDtypeStruct((M, K), E4M3),
            jax.ShapeDtypeStruct((M,), jnp.float32),
        ),
        grid=(M,),
        grid_names=("row",),
    )
    values, scales = kernel(x.reshape(M, K))
    return values.reshape(x.shape), scales.reshape(leading)
