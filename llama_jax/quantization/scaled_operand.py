"""An operand of an 8-bit matrix product: narrow values, and what they are multiplied with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.kernels.matmul.quantize_rows_gpu import quantize_rows_gpu, takes_rows_of
from llama_jax.quantization.number_formats import E4M3, quantize_rows, quantize_tensor


class ScaledOperand(NamedTuple):
    """`values * scale`, to be summed over the dimensions `contracted`.

    Attributes:
      values: 8-bit, of any shape.
      scale: float32; `[]`, or a row each: the shape of `values` without `contracted`. What is
        summed over shares a scale, or it could not be taken out of the sum.
      contracted: dimensions of `values`.
    """

    values: jax.Array
    scale: jax.Array
    contracted: tuple[int, ...]

    @property
    def rest(self) -> tuple[int, ...]:
        """The dimensions of `values` that the product keeps."""
        return tuple(dim for dim in range(self.values.ndim) if dim not in self.contracted)


def scale_rows(
    x: jax.Array, contracted: tuple[int, ...], dtype: jnp.dtype, *, power_of_two: bool, fused: bool
) -> ScaledOperand:
    """`x` with a scale for each of the rows that the product will sum over.

    Args:
      fused: one pass of our Hopper kernel, for rows along the last dimension that it takes.
    """
    in_one_pass = (
        fused
        and contracted == (x.ndim - 1,)
        and dtype == E4M3
        and takes_rows_of(x.shape[-1], x.dtype)
    )
    if in_one_pass:
        values, scale = quantize_rows_gpu(x, power_of_two=power_of_two)
    else:
        values, scale = quantize_rows(x, dtype, axes=contracted, power_of_two=power_of_two)
    return ScaledOperand(values, scale, contracted)


def scale_tensor(
    x: jax.Array, contracted: tuple[int, ...], dtype: jnp.dtype, *, power_of_two: bool
) -> ScaledOperand:
    """`x` with one scale."""
    values, scale = quantize_tensor(x, dtype, power_of_two=power_of_two)
    return ScaledOperand(values, scale, contracted)
