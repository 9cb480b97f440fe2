"""The matrix product with every operand as a matrix, for one device.

XLA's CPU backend transposes a weight whose output dimensions stand apart, which costs as much as
reading it: decoding SmolLM2 took three times as long. As two-dimensional operands nothing is moved.
On a mesh the reference is right: flattening batch and sequence gathers what is sharded along both.
"""

import math

import jax

from llama_jax.kernels.matmul import reference
from llama_jax.quantization.quantized_tensor import QuantizedTensor


def matmul(x: jax.Array, weight: jax.Array | QuantizedTensor, *, contracted: int = 1) -> jax.Array:
    """Same contract as `reference.matmul`."""
    leading = x.shape[: x.ndim - contracted]
    outputs = weight.shape[: weight.ndim - contracted]
    inputs = math.prod(weight.shape[weight.ndim - contracted :])
    if isinstance(weight, QuantizedTensor):
        matrix = weight.as_matrix(contracted)
    else:
        matrix = weight.reshape(-1, inputs)
    product = reference.matmul(x.reshape(-1, inputs), matrix)
    return product.reshape(*leading, *outputs)
