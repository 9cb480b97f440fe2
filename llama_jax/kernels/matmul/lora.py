"""The product with a weight that has a low-rank change beside it: two thin products more, and never
the sum as a matrix."""

import functools
from collections.abc import Callable

import jax

from llama_jax.kernels.matmul import reference
from llama_jax.quantization.lora_tensor import LoraTensor


@functools.cache
def with_lora(matmul: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`matmul`, that knows a `LoraTensor` too: `matmul` multiplies with its base.

    The change is multiplied in the dtype of the activations, and added to the product of the base
    in float32. The same function gives the same result, which jitted functions know again.
    """

    def product(x: jax.Array, weight, *, contracted: int = 1) -> jax.Array:
        if not isinstance(weight, LoraTensor):
            return matmul(x, weight, contracted=contracted)
        of_base = matmul(x, weight.base, contracted=contracted)
        low = reference.matmul(x, weight.down, contracted=contracted)
        change = weight.scaling * reference.matmul(low, weight.up).astype("float32")
        return (of_base.astype("float32") + change).astype(x.dtype)

    return product
