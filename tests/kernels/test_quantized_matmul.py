"""The product with a quantised weight against NumPy on the numbers that are stored."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama_jax.kernels.matmul import flattened, quantized, reference
from llama_jax.quantization.quantize import quantize_weight
from llama_jax.quantization.quantized_tensor import QuantizedTensor, WeightFormat

# Name, contracted dimensions, shapes. 4 x 72 inputs are two groups of 128 and one of 32.
LAYERS = [
    ("query", 1, (2, 3, 160), (4, 6, 160)),
    ("output", 2, (2, 3, 4, 72), (5, 4, 72)),
    ("one_token", 1, (40,), (7, 40)),
]
layers = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer[0])
formats = pytest.mark.parametrize("weight_format", WeightFormat)


@functools.cache
def _operands(layer, weight_format, dtype=jnp.float32):
    _, contracted, x_shape, weight_shape = layer
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=x_shape), dtype)
    weight = quantize_weight(
        random.normal(size=weight_shape).astype(np.float32), weight_format, contracted=contracted
    )
    return x, jax.tree.map(jnp.asarray, weight)


def _multiplied_out(weight: QuantizedTensor, contracted: int) -> np.ndarray:
    """float64 `[out, in]` of what is stored, by the definition of the formats."""
    inputs = int(np.prod(weight.shape[weight.ndim - contracted :]))
    values = np.asarray(weight.values).astype(np.float64).reshape(-1, inputs)
    scales = np.asarray(weight.scales, np.float64).reshape(len(values), -1)
    if weight.format is WeightFormat.INT4:
        scales = np.repeat(scales, 128, axis=1)[:, :inputs]
    return values * scales


def _fp8_tokens(x: np.ndarray) -> np.ndarray:
    """float32 `[tokens, in]` rounded as Meta's kernel does: 448 is a row's largest magnitude, or
    1200 if that is less."""
    scale = np.minimum(np.abs(x).max(-1, keepdims=True), np.float32(1200)) / np.float32(448)
    clipped = np.clip(x / scale, -448, 448)
    return clipped.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


@pytest.mark.parametrize("matmul", [quantized.matmul, reference.matmul, flattened.matmul])
@layers
@formats
def test_equals_the_product_of_the_stored_numbers(matmul, layer, weight_format):
    contracted = layer[1]
    x, weight = _operands(layer, weight_format)
    result = matmul(x, weight, contracted=contracted)
    rows = np.asarray(x).reshape(-1, int(np.prod(x.shape[x.ndim - contracted :])))
    rows = _fp8_tokens(rows) if weight_format is WeightFormat.FP8 else rows
    expected = rows @ _multiplied_out(weight, contracted).T
    assert result.dtype == x.dtype
    assert result.shape == (
        *x.shape[: x.ndim - contracted],
        *weight.shape[: weight.ndim - contracted],
    )
    # Sums of at most 288 products of order one in float32.
    np.testing.assert_allclose(np.asarray(result).reshape(expected.shape), expected, atol=3e-5)


@layers
@formats
def test_in_bfloat16_only_roundings_to_bfloat16_are_added(layer, weight_format):
    """One of the result, and with int4 one of every weight; activations of FP8 are quantised from
    the same numbers either way."""
    contracted = layer[1]
    x, weight = _operands(layer, weight_format, jnp.bfloat16)
    result = quantized.matmul(x, weight, contracted=contracted)
    x, exact = x.astype(jnp.float32), weight
    if weight_format is WeightFormat.INT4:
        exact = weight.dequantize(jnp.bfloat16).astype(jnp.float32)
    expected = np.float64(reference.matmul(x, exact, contracted=contracted))
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(result), expected, rtol=2**-8, atol=1e-4)


def test_an_activation_beyond_1200_is_clipped_and_spares_the_others():
    weight = quantize_weight(np.eye(4, dtype=np.float32), WeightFormat.FP8)
    x = np.float32([[5000.0, 3.0, -0.01, 0.0], [-2000.0, 1.0, 2.0, 4.0]])
    result = np.asarray(quantized.matmul(jnp.asarray(x), weight))
    np.testing.assert_allclose(result, _fp8_tokens(x), rtol=1e-6)
    assert result[0, 0] == pytest.approx(1200) and result[1, 0] == pytest.approx(-1200)
    # 1200 / 448 * 2^-10, half of the smallest step: with 5000 for the scale -0.01 would be lost.
    assert result[0, 2] == pytest.approx(-0.01, abs=1200 / 448 * 2**-10)


def test_rows_of_zeros_stay_zeros():
    x = jnp.zeros((2, 130), jnp.bfloat16)
    for weight_format in WeightFormat:
        weight = quantize_weight(np.zeros((3, 130), np.float32), weight_format)
        assert not np.any(np.asarray(quantized.matmul(x, weight), np.float32))


def test_an_infinite_activation_is_not_hidden_by_fp8():
    weight = quantize_weight(np.ones((2, 3), np.float32), WeightFormat.FP8)
    result = quantized.matmul(jnp.asarray([[1.0, jnp.inf, 1.0], [1.0, 2.0, 3.0]]), weight)
    assert np.all(np.isnan(result[0])) and np.all(np.isfinite(result[1]))


@formats
def test_a_stack_of_layers_is_multiplied_out_like_each_layer(weight_format):
    weights = [_operands(("", 2, (4, 72), (5, 4, 72)), weight_format)[1] for _ in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
    for index, weight in enumerate(weights):
        np.testing.assert_array_equal(
            stacked.dequantize(jnp.float32)[index], weight.dequantize(jnp.float32)
        )
        np.testing.assert_allclose(
            np.asarray(weight.dequantize(jnp.float32)).reshape(5, -1),
            _multiplied_out(weight, 2),
            rtol=1e-6,
        )
