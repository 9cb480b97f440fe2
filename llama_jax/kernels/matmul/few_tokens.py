"""What the kernels of products of few tokens with a quantised weight take, on any platform."""

import jax
import jax.numpy as jnp

from llama_jax.quantization.quantized_tensor import QuantizedTensor

# More tokens are a prompt, whose product is bound by arithmetic: XLA's is right for it.
MAX_TOKENS = 64


def unsupported_operands(x: jax.ShapeDtypeStruct, weight: QuantizedTensor) -> str | None:
    """What of dtypes and ranks, and of the number of tokens, no kernel takes; None if nothing."""
    if x.dtype != jnp.bfloat16:
        return f"it multiplies bfloat16, not {x.dtype}"
    if x.ndim != 2 or weight.ndim != 2:
        return f"it takes matrices, not x {x.shape} and weight {weight.shape}"
    if not 1 <= x.shape[0] <= MAX_TOKENS:
        return f"it takes 1 to {MAX_TOKENS} tokens, not {x.shape[0]}"
    return None
