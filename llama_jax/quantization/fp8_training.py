"""The matrix product of training in 8 bits: quantised operands forward and backward.

`quantized_matmul(recipe, product)` is an operator like `kernels/matmul/reference.py`. A linear
layer is three products, and each of them, but for what the recipe leaves in bfloat16, is one of
8-bit numbers:

    forward   y  = x  w^T   sums over inputs
    of x      dx = dy w     sums over outputs
    of w      dw = dy^T x   sums over tokens

Weights are quantised from their own dtype, float32 as a rule, and their gradient is a float32
product that is never rounded. One scale serves a tensor in whatever direction it is summed, so its
8-bit values are kept for the backward pass: half the bytes of what bfloat16 keeps. Rows change with
the direction: `x` itself is kept and quantised again, along the other dimensions.

On a mesh the largest magnitude is that of the whole tensor or row, wherever its parts lie, so the
numbers do not depend on the mesh; where a weight is split, its 8-bit values are what is gathered.

Not run on a GPU or TPU yet; compiled for both (`tests/kernels/matmul/test_fp8_compiles.py`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from llama_jax.quantization.scaled_operand import ScaledOperand
from llama_jax.quantization.scaled_product import ScaledProduct
from llama_jax.quantization.training_recipes import TrainingRecipe


def quantized_matmul(recipe: TrainingRecipe, product: ScaledProduct) -> Callable[..., jax.Array]:
    """`matmul(x [..., in...], weight [out..., in...], *, contracted=1) -> [..., out...]`.

    Args:
      recipe: what is quantised, and how.
      product: one of `scaled_product.py`, which can multiply what the recipe makes.

    The result has the dtype of `x`, and so has the gradient of `x`; that of `weight` has its own.
    What is NaN or infinite in an operand makes all that shares its scale NaN.
    """

    def matmul(x: jax.Array, weight: jax.Array, *, contracted: int = 1) -> jax.Array:
        return _matmul(x, weight, contracted, weight.dtype, recipe, product)

    return matmul


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _matmul(x, weight, contracted, weight_dtype, recipe, product):
    return _forward(x, weight, contracted, weight_dtype, recipe, product)[0]


def _forward(x, weight, contracted, weight_dtype, recipe: TrainingRecipe, product):
    del weight_dtype  # known where it is not needed
    left = recipe.quantize(x, _last(x, contracted))
    right = recipe.quantize(weight, _last(weight, contracted))
    y = product(left, right, dtype=x.dtype, fast=True)
    if recipe.by_row:
        return y, (x, weight)
    return y, (left[:2], right[:2])


def _backward(contracted, weight_dtype, recipe: TrainingRecipe, product, saved, gradient):
    x, weight = saved
    num_outputs = (weight if recipe.by_row else weight[0]).ndim - contracted
    tokens = tuple(range(gradient.ndim - num_outputs))
    outputs = tuple(range(num_outputs))

    left = recipe.quantize_gradient(gradient, _last(gradient, num_outputs))
    right = _summed_over(recipe, weight, outputs)
    of_x = product(left, right, dtype=gradient.dtype, fast=False)
    if recipe.bf16_weight_gradient:
        of_weight = jax.lax.dot_general(
            gradient, x, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32
        ).astype(weight_dtype)
    else:
        # Quantised once, if there is one scale; `left` is then the same values.
        left = recipe.quantize_gradient(gradient, tokens)
        right = _summed_over(recipe, x, tokens)
        of_weight = product(left, right, dtype=weight_dtype, fast=False)
    return of_x, of_weight


_matmul.defvjp(_forward, _backward)


def _summed_over(recipe: TrainingRecipe, saved, contracted: tuple[int, ...]) -> ScaledOperand:
    """What the forward pass kept of an operand, to be summed over other dimensions."""
    return (
        recipe.quantize(saved, contracted) if recipe.by_row else ScaledOperand(*saved, contracted)
    )


def _last(x: jax.Array, count: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - count, x.ndim))
