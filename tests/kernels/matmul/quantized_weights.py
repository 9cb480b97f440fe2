"""Random quantised weights, and their shapes alone, for the tests of products with them."""

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

DTYPES = {
    WeightFormat.FP8: jnp.float8_e4m3fn,
    WeightFormat.INT8: jnp.int8,
    WeightFormat.INT4: jnp.int4,
}
# Of the 8B model: output projection of the feed-forward, its gate, and query with key and value.
SHAPES_8B = [(4096, 14336), (14336, 4096), (6144, 4096)]


def random_weight(format: WeightFormat, num_outputs: int, num_inputs: int) -> QuantizedTensor:
    rng = np.random.default_rng(num_outputs + num_inputs)
    if format is WeightFormat.FP8:
        values = rng.standard_normal((num_outputs, num_inputs)) * 20
    else:
        most = 127 if format is WeightFormat.INT8 else 7
        values = rng.integers(-most, most + 1, (num_outputs, num_inputs))
    # Every scale its own, so that a wrong one shows.
    groups = (num_inputs // INT4_GROUP,) if format is WeightFormat.INT4 else ()
    scales = np.exp(rng.standard_normal((num_outputs, *groups)))
    values = jnp.asarray(values, jnp.float32).astype(DTYPES[format])
    return QuantizedTensor(values, jnp.asarray(scales, jnp.float32), format)


def abstract_weight(format: WeightFormat, num_outputs: int, num_inputs: int) -> QuantizedTensor:
    groups = (num_inputs // INT4_GROUP,) if format is WeightFormat.INT4 else ()
    return QuantizedTensor(
        jax.ShapeDtypeStruct((num_outputs, num_inputs), DTYPES[format]),
        jax.ShapeDtypeStruct((num_outputs, *groups), jnp.float32),
        format,
    )
