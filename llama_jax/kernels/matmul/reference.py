"""The matrix product of every linear layer, in plain jnp. The oracle of the faster ones.

The gradient is written out because of weights that are wider than the activations, as float32
master weights are. They are cast where they are multiplied, so what a mesh gathers of them is
bfloat16; but the gradient that JAX would derive passes through that cast too, and would be rounded
to bfloat16 before it is summed over devices and micro-batches. Here it is a float32 product that is
never rounded. A function with its own gradient has no forward mode (`jax.jvp`).
"""

import functools

import jax
import jax.numpy as jnp

from llama_jax.kernels.matmul import quantized
from llama_jax.quantization.quantized_tensor import QuantizedTensor


def matmul(x: jax.Array, weight: jax.Array | QuantizedTensor, *, contracted: int = 1) -> jax.Array:
    """Contracts the last dimensions of `x` with the last dimensions of `weight`.

    Weights are `[out..., in...]` throughout, so a query projection `[N, H, D]` takes `[B, T, D]` to
    `[B, T, N, H]`, and an output projection `[D, N, H]` with `contracted=2` takes it back.

    Args:
      x: `[..., in...]`.
      weight: `[out..., in...]`, cast to the dtype of `x` for the product; a quantised one is
        multiplied by `quantized.matmul`, which has no gradient.
      contracted: how many trailing dimensions are summed over.

    Returns:
      `[..., out...]` in the dtype of `x`, accumulated in float32. Gradients are accumulated in
      float32 too; that of `x` is in its dtype, and that of `weight` in its own.
    """
    if isinstance(weight, QuantizedTensor):
        return quantized.matmul(x, weight, contracted=contracted)
    return _matmul(x, weight, contracted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x, weight, contracted):
    x_dims = tuple(range(x.ndim - contracted, x.ndim))
    weight_dims = tuple(range(weight.ndim - contracted, weight.ndim))
    return _product(x, weight.astype(x.dtype), x_dims, weight_dims).astype(x.dtype)


def _forward(x, weight, contracted):
    return _matmul(x, weight, contracted), (x, weight)


def _backward(contracted, saved, gradient):
    x, weight = saved
    num_outputs = weight.ndim - contracted
    leading = tuple(range(x.ndim - contracted))
    outputs = tuple(range(gradient.ndim - num_outputs, gradient.ndim))
    of_x = _product(gradient, weight.astype(x.dtype), outputs, tuple(range(num_outputs)))
    of_weight = _product(gradient, x, leading, leading)
    return of_x.astype(x.dtype), of_weight.astype(weight.dtype)


_matmul.defvjp(_forward, _backward)


def _product(left, right, left_dims, right_dims) -> jax.Array:
    """Contracts the named dimensions in float32; what is left of `left` comes first."""
    return jax.lax.dot_general(
        left, right, ((left_dims, right_dims), ((), ())), preferred_element_type=jnp.float32
    )
