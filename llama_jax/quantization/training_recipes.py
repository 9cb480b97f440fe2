"""What 8-bit training quantises, to which numbers and with how many scales.

    fp8_tensorwise          one scale a tensor, taken from its values now; e4m3 forward, e5m2 for
                            gradients. Transformer Engine's `Float8CurrentScaling`, torchao's
                            `tensorwise`.
    fp8_rowwise             a scale for each row that a product sums over (a token, an output
                            channel); e4m3 everywhere. torchao's `rowwise`.
    fp8_rowwise_bf16_wgrad  the same, but the gradient of the weight is a bfloat16 product of what
                            was never quantised. torchao's `rowwise_with_gw_hp`.
    int8                    rows in int8, likewise: twice bfloat16's rate on TPU v5e, v5p and v6e,
                            which have no FP8 units. Integers have the same step everywhere, so rows
                            with outliers lose more than in FP8.

A product in the backward pass sums over other dimensions than the one of the forward pass, so rows
need scales of their own there. As in torchao, they are powers of two for `rowwise`: a number then
keeps its mantissa in both copies of a weight. No state is kept between steps.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llama_jax.quantization.number_formats import E4M3, E5M2, INT8
from llama_jax.quantization.scaled_operand import ScaledOperand, scale_rows, scale_tensor


@dataclass(frozen=True)
class TrainingRecipe:
    """Attributes:
    name: as a run asks for it.
    dtype: of activations and weights.
    gradient_dtype: of gradients of activations.
    by_row: a scale a row, not a tensor.
    power_of_two: of scales.
    bf16_weight_gradient: the gradient of the weight is a product of unquantised operands.
    fused_rows: rows are quantised by our Hopper kernel; the numbers are the same.
    """

    name: str
    dtype: jnp.dtype
    gradient_dtype: jnp.dtype
    by_row: bool
    power_of_two: bool
    bf16_weight_gradient: bool

    fused_rows: bool = False

    def quantize(self, x: jax.Array, contracted: tuple[int, ...]) -> ScaledOperand:
        """An activation or a weight that will be summed over the dimensions `contracted`."""
        return self._scale(x, contracted, self.dtype)

    def quantize_gradient(self, x: jax.Array, contracted: tuple[int, ...]) -> ScaledOperand:
        """The gradient of a product's result, that will be summed over `contracted`."""
        return self._scale(x, contracted, self.gradient_dtype)

    def _scale(self, x, contracted, dtype) -> ScaledOperand:
        options = {"power_of_two": self.power_of_two}
        if not self.by_row:
            return scale_tensor(x, contracted, dtype, **options)
        return scale_rows(x, contracted, dtype, fused=self.fused_rows, **options)


def _recipe(name, dtype, gradient_dtype, *, by_row, power_of_two=False, bf16_weight_gradient=False):
    return TrainingRecipe(name, dtype, gradient_dtype, by_row, power_of_two, bf16_weight_gradient)


RECIPES: dict[str, TrainingRecipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("fp8_tensorwise", E4M3, E5M2, by_row=False, power_of_two=True),
        _recipe("fp8_rowwise", E4M3, E4M3, by_row=True, power_of_two=True),
        _recipe(
            "fp8_rowwise_bf16_wgrad",
            E4M3,
            E4M3,
            by_row=True,
            power_of_two=True,
            bf16_weight_gradient=True,
        ),
        _recipe("int8", INT8, INT8, by_row=True, bf16_weight_gradient=True),
    )
}
