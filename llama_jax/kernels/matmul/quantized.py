"""The product with a quantised weight, in plain jnp: the oracle of the kernels.

    int8   integers are exact in the dtype of the activations (their 8 bits fit bfloat16's), so the
           product is of them, and the scale of an output channel multiplies what comes out
    int4   a scale belongs to some of the inputs, so the weight is multiplied out before the product
    fp8    activations are quantised too, a scale a token whose largest magnitude counts as at most
           1200 (Meta's bound: llama-models `fp8_activation_scale_ub`; what is above is clipped);
           the product is of FP8 numbers, and both scales multiply what comes out

XLA makes of these what it can. The FP8 product is handed over as such to GPUs and TPUs: a Hopper
runs it through cuBLASLt, a chip without FP8 units widens it, and the CPU is given the same numbers
in the dtype of the activations, in which every float8_e4m3fn number is exact. An int4 weight is
written out in the dtype of the activations where XLA cannot fuse that into the product, as on GPUs:
right, but it saves memory and no time. `weight_only_gpu.py` and `weight_only_tpu.py` do better.

There are no gradients: whoever trains a quantised weight wants another function.
"""

import jax
import jax.numpy as jnp

from llama_jax.quantization.number_formats import E4M3, META_ROW_BOUND, quantize_rows
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat


def matmul(x: jax.Array, weight: QuantizedTensor, *, contracted: int = 1) -> jax.Array:
    """Contracts the last dimensions of `x` with those of `weight`, as `reference.matmul`.

    Args:
      x: `[..., in...]`, float32, bfloat16 or float16.
      weight: of shape `[out..., in...]`.
      contracted: how many trailing dimensions are summed over.

    Returns:
      `[..., out...]` in the dtype of `x`, accumulated and scaled in float32.
    """
    if weight.format is WeightFormat.INT4:
        return _contract(x, weight.dequantize(x.dtype), contracted).astype(x.dtype)
    if weight.format is WeightFormat.INT8:
        product = _contract(x, weight.values.astype(x.dtype), contracted)
        return (product * weight.scales).astype(x.dtype)
    inputs = tuple(range(-contracted, 0))
    values, token_scales = quantize_rows(x, E4M3, axes=inputs, bound=META_ROW_BOUND)
    product = jax.lax.platform_dependent(
        values,
        weight.values,
        cuda=lambda a, b: _contract(a, b, contracted),
        tpu=lambda a, b: _contract(a, b, contracted),
        default=lambda a, b: _contract(a.astype(x.dtype), b.astype(x.dtype), contracted),
    )
    num_outputs = weight.ndim - contracted
    token_scales = token_scales.reshape(*token_scales.shape, *(1,) * num_outputs)
    return (product * token_scales * weight.scales).astype(x.dtype)


def _contract(x: jax.Array, weight: jax.Array, contracted: int) -> jax.Array:
    """float32 `[..., out...]`."""
    of_x = tuple(range(x.ndim - contracted, x.ndim))
    of_weight = tuple(range(weight.ndim - contracted, weight.ndim))
    return jax.lax.dot_general(
        x, weight, ((of_x, of_weight), ((), ())), preferred_element_type=jnp.float32
    )
