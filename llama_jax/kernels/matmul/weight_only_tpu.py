"""Products of a few tokens with a quantised weight on TPUs, in Pallas.

As on GPUs (`weight_only_gpu.py`) a step of decoding takes the time of reading every weight once, as
it is stored, in 8 or 4 bits; the values become bfloat16 on their way to the matrix unit, where all
three formats are exact, and the scales meet the float32 sums.

How. The grid runs over blocks of outputs and, innermost, of inputs; `pallas_call` fetches the next
block while this one is multiplied. Tokens are the left operand, padded to 16 rows by the compiler,
and the weight is contracted along its last dimension as it lies. int4's groups of 128 inputs are
multiplied one by one, each product is scaled by its row of scales, and summed: these come
transposed, `[groups, out]`, so that a group's scales lie along lanes (6 % of the weight's bytes,
transposed outside, once a call where XLA does not take it out of the loop of steps).

Roofline: bytes / bandwidth: 28672 x 4096 at 8 bits takes 143 us on v5e (0.82 TB/s), 42 on v5p, 72
on v6e, 32 on one core of tpu7x (3.69); half of that at 4 bits. What a block of 512 x 2048 weights
costs in instructions, by the compiler's schedule for 8 tokens, and what memory delivers meanwhile:

    weights a cycle     int8    fp8     int4    memory, at 8 and at 4 bits
    v5e                 1042     497     909     550   1090
    v5p, a core          962     478     853     790   1580

So int8 should wait for memory, while fp8, which these chips widen in 7 vector instructions, and
int4 should wait for the conversion: 10 to 90 % over the roofline. No TPU has run this: interpreted
on CPUs, compiled for v5e, v5p, v6e and tpu7x. To try there: larger blocks, and, on chips whose
matrix units multiply 8-bit numbers (FP8: tpu7x), the format's own products where conversion shows.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from llama_jax.kernels.matmul.few_tokens import unsupported_operands
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

# A block of the weight: large enough that fetching it takes microseconds, and with the next one and
# their bfloat16 well within the 16 MiB of VMEM that a kernel is given by default.
_BLOCK_OUTPUTS = (512, 256, 128)
_BLOCK_INPUTS = (2048, 1024, 512, 256, 128)
_BLOCK_WEIGHTS = 512 * 2048
# Scales of a block are rows, and rows come in eights unless they are all there are.
_INT4_BLOCK_INPUTS = (2048, 1024)


def refusal(
    x: jax.ShapeDtypeStruct, weight: QuantizedTensor, *, platform: str, device_kind: str
) -> str | None:
    """Why `weight_only` cannot take this, in one line; None if it can. Looks at shapes only."""
    if platform != "tpu":
        return f"it is written for TPUs, not {device_kind}"
    return unsupported_case(x, weight)


def unsupported_case(x: jax.ShapeDtypeStruct, weight: QuantizedTensor) -> str | None:
    """What of the shapes and dtypes the kernel cannot take; None if nothing."""
    if reason := unsupported_operands(x, weight):
        return reason
    if weight.shape[0] % 128 or weight.shape[1] % 128:
        return "it takes multiples of 128 outputs and inputs, not {} and {}".format(*weight.shape)
    if _block(weight) is None:
        return f"it takes multiples of 1024 inputs in int4, or at most 8192, not {weight.shape[1]}"
    return None


def weight_only(x: jax.Array, weight: QuantizedTensor, *, interpret: bool = False) -> jax.Array:
    """`x` times the transposed weight; activations are not quantised, whatever the format.

    Args:
      x: bfloat16 `[M, in]`, M from 1 to 64.
      weight: `[out, in]`; multiples of 128 outputs and inputs.
      interpret: run on the CPU.

    Returns:
      bfloat16 `[M, out]`, summed in float32.

    Raises:
      ValueError: what `refusal` names.
    """
    if reason := unsupported_case(x, weight):
        raise ValueError(f"weight_only: {reason}")
    num_tokens, num_inputs = x.shape
    num_outputs = weight.shape[0]
    outputs, inputs = _block(weight)
    in_groups = weight.format is WeightFormat.INT4
    scales = weight.scales.T if in_groups else weight.scales[None]
    num_groups = inputs // INT4_GROUP
    scale_spec = (
        pl.BlockSpec((num_groups, outputs), lambda o, i: (i, o))
        if in_groups
        else pl.BlockSpec((1, outputs), lambda o, i: (0, o))
    )
    return pl.pallas_call(
        functools.partial(_kernel, in_groups=in_groups),
        out_shape=jax.ShapeDtypeStruct((num_tokens, num_outputs), x.dtype),
        grid=(num_outputs // outputs, num_inputs // inputs),
        in_specs=[
            pl.BlockSpec((num_tokens, inputs), lambda o, i: (0, i)),
            pl.BlockSpec((outputs, inputs), lambda o, i: (o, i)),
            scale_spec,
        ],
        out_specs=pl.BlockSpec((num_tokens, outputs), lambda o, i: (0, o)),
        scratch_shapes=[pltpu.VMEM((num_tokens, outputs), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name=f"weight_only_{weight.format}",
    )(x, weight.values, scales)


def _block(weight: QuantizedTensor) -> tuple[int, int] | None:
    """Outputs and inputs of a block; None if there is no good one."""
    num_outputs, num_inputs = weight.shape
    in_groups = weight.format is WeightFormat.INT4
    candidates = (*_INT4_BLOCK_INPUTS, num_inputs) if in_groups else _BLOCK_INPUTS
    inputs = next(n for n in candidates if num_inputs % n == 0)
    fitting = (n for n in _BLOCK_OUTPUTS if num_outputs % n == 0 and n * inputs <= _BLOCK_WEIGHTS)
    outputs = next(fitting, None)
    return None if outputs is None else (outputs, inputs)


def _kernel(x, weight, scales, output, total, *, in_groups: bool):
    """One block of outputs and inputs; `total` is the sum over the blocks of inputs so far."""

    @pl.when(pl.program_id(1) == 0)
    def _():
        total[...] = jnp.zeros_like(total)

    if in_groups:
        for group in range(weight.shape[1] // INT4_GROUP):
            inputs = slice(group * INT4_GROUP, (group + 1) * INT4_GROUP)
            product = _product(x[:, inputs], weight[:, inputs])
            total[...] += product * scales[group : group + 1, :]
    else:
        total[...] += _product(x[...], weight[...])

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _():
        result = total[...] if in_groups else total[...] * scales[...]
        output[...] = result.astype(output.dtype)


def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`[M, in]` times the transposed `[out, in]`, float32."""
    return lax.dot_general(
        x,
        weight.astype(x.dtype),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )
