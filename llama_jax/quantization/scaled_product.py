"""The product of two scaled operands, four times: one result, different machine instructions.

    xla         an 8-bit product, then the scales: the compiler's matrix units, and on a GPU one
                more pass over a float32 result
    cublas      scalar scales on the operands, the form in which XLA hands them to cuBLASLt, which
                then writes the result once and in its own dtype; where a mesh splits the sum, its
                parts are rounded to it and then added up. Elsewhere a bfloat16 product, of the same
                numbers where scales are powers of two
    mosaic_gpu  our Hopper kernel, which multiplies with row scales before it writes; one device
    emulate     a bfloat16 product of the same values, which are exact in it: what a machine without
                8-bit units computes, and the oracle of the other three

All accumulate in float32 (`xla` sums integers as int32), so they differ by the order of sums. With
`fast` Hopper's FP8 units keep about 14 bits of a sum (arXiv 2412.19437, section 3.3.2), which
forward products stand and gradients, by the custom of Transformer Engine, are spared.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from llama_jax.quantization.scaled_operand import ScaledOperand

ScaledProduct = Callable[..., jax.Array]


def xla(left: ScaledOperand, right: ScaledOperand, *, dtype: jnp.dtype, fast: bool) -> jax.Array:
    """`[kept of left..., kept of right...]` in `dtype`. Signature of all four.

    Args:
      fast: sums may lose bits that the hardware must be told to keep.
    """
    integers = jnp.issubdtype(left.values.dtype, jnp.integer)
    sums = _dot(
        left.values, right.values, left, right, jnp.int32 if integers else jnp.float32, fast
    )
    return _scaled(sums, left, right).astype(dtype)


def cublas(left: ScaledOperand, right: ScaledOperand, *, dtype: jnp.dtype, fast: bool) -> jax.Array:
    """See `xla`; scales are scalars."""
    assert left.scale.ndim == right.scale.ndim == 0
    # XLA merges products that share an operand, as query, key and value do, into one of all their
    # weights; with a scale each that could only be a bfloat16 product. Scales behind a barrier are
    # no product's but this one's.
    scales = jax.lax.optimization_barrier((left.scale, right.scale))
    # Its GEMM rewriter looks for convert, multiply by a scalar, dot, in this order.
    factors = (
        operand.values.astype(jnp.bfloat16) * scale.astype(jnp.bfloat16)
        for operand, scale in zip((left, right), scales, strict=True)
    )
    return _dot(*factors, left, right, dtype, fast)


def emulate(
    left: ScaledOperand, right: ScaledOperand, *, dtype: jnp.dtype, fast: bool
) -> jax.Array:
    """See `xla`; `fast` changes nothing."""
    factors = (operand.values.astype(jnp.bfloat16) for operand in (left, right))
    return _scaled(_dot(*factors, left, right, jnp.float32, True), left, right).astype(dtype)


def mosaic_gpu(
    left: ScaledOperand,
    right: ScaledOperand,
    *,
    dtype: jnp.dtype,
    fast: bool,
    interpret: bool = False,
) -> jax.Array:
    """See `xla`; float8_e4m3fn only, and `fast` changes nothing: every 128 terms are added to a
    float32 sum of its own."""
    from llama_jax.kernels.matmul.fp8_gemm_gpu import fp8_gemm

    product = fp8_gemm(*_as_rows(left), *_as_rows(right), out_dtype=dtype, interpret=interpret)
    return product.reshape(_kept_shape(left) + _kept_shape(right))


IMPLEMENTATIONS: dict[str, ScaledProduct] = {
    "xla": xla,
    "cublas": cublas,
    "mosaic_gpu": mosaic_gpu,
    "emulate": emulate,
}


def _dot(left_values, right_values, left, right, dtype, fast) -> jax.Array:
    return jax.lax.dot_general(
        left_values,
        right_values,
        ((left.contracted, right.contracted), ((), ())),
        precision=jax.lax.Precision.DEFAULT if fast else jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
    )


def _scaled(sums: jax.Array, left: ScaledOperand, right: ScaledOperand) -> jax.Array:
    if left.scale.ndim == 0:
        return sums * (left.scale * right.scale)
    rows = left.scale.reshape(left.scale.shape + (1,) * right.scale.ndim)
    return sums * rows * right.scale


def _kept_shape(operand: ScaledOperand) -> tuple[int, ...]:
    return tuple(operand.values.shape[dim] for dim in operand.rest)


def _as_rows(operand: ScaledOperand) -> tuple[jax.Array, jax.Array]:
    """Values `[rows, contracted]` and scales `[rows]`."""
    values = operand.values.transpose(operand.rest + operand.contracted)
    rows = math.prod(_kept_shape(operand))
    return values.reshape(rows, -1), jnp.broadcast_to(operand.scale.reshape(-1), rows)
