"""Weights to few bits: errors within what the formats allow, and less of them than by rounding."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llama_jax.errors import InputError
from llama_jax.quantization import quantize
from llama_jax.quantization.calibrated_int4 import quantize_calibrated
from llama_jax.quantization.int4_packing import pack_int4, packed_shape, unpack_int4
from llama_jax.quantization.quantize import quantize_weight, scales_shape
from llama_jax.quantization.quantized_tensor import WeightFormat
from llama_jax.quantization.recipes import FEED_FORWARD_PRODUCTS, PRODUCTS, RECIPES, recipe_named

formats = pytest.mark.parametrize("weight_format", WeightFormat)
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_t(4, size=(24, 5, 64)).astype(np.float32)  # heavy tails, as weights have


def multiplied_out(tensor) -> np.ndarray:
    return np.asarray(jax.tree.map(jnp.asarray, tensor).dequantize(jnp.float32))


@formats
@pytest.mark.parametrize("contracted", [1, 2])
def test_every_error_is_within_half_a_step(weight_format, contracted):
    quantized = quantize_weight(WEIGHT, weight_format, contracted=contracted)
    assert quantized.values.shape == WEIGHT.shape
    assert quantized.scales.shape == scales_shape(WEIGHT.shape, weight_format, contracted)
    rows = WEIGHT.reshape(-1, 64 if contracted == 1 else 320)
    error = np.abs(multiplied_out(quantized) - WEIGHT).reshape(rows.shape)
    scales = np.abs(quantized.scales.reshape(len(rows), -1))
    if weight_format is WeightFormat.FP8:
        # Half a unit in the last of 3 mantissa bits; half a subnormal step of 2^-9.
        assert np.all(error <= np.maximum(2**-4 * np.abs(rows), 2**-10 * scales) * 1.0001)
    elif weight_format is WeightFormat.INT8:
        assert np.all(error <= 0.5001 * scales)
    else:
        scales = np.repeat(scales, 128, axis=1)[:, : rows.shape[1]]
        # What is cut, the ladder cuts by less than half of the largest.
        assert np.all(error <= np.maximum(0.5001 * scales, 0.5 * np.abs(rows)))


def test_int4_loses_less_than_scales_of_the_largest_magnitude():
    """Against Meta's rule, largest / 8 clipped to [-8, 7] (llama-models, `int4_row_quantize`)."""
    rows = WEIGHT.reshape(-1, 64)
    scale = np.abs(rows).max(1, keepdims=True) / 8
    theirs = np.clip(np.rint(rows / scale), -8, 7) * scale
    ours = multiplied_out(quantize_weight(rows, WeightFormat.INT4))
    assert np.square(ours - rows).sum() < 0.85 * np.square(theirs - rows).sum()


@formats
def test_parts_of_any_size_give_the_same_numbers(weight_format, monkeypatch):
    whole = quantize_weight(WEIGHT, weight_format)
    monkeypatch.setattr(quantize, "_PART_BYTES", 4 * 64 * 7)
    parts = quantize_weight(WEIGHT.astype(np.float32), weight_format)
    assert whole.values.tobytes() == parts.values.tobytes()
    np.testing.assert_array_equal(whole.scales, parts.scales)


@formats
def test_a_weight_that_is_not_finite_is_named(weight_format):
    for value in (np.nan, np.inf):
        weight = WEIGHT.copy()
        weight[3, 2, 1] = value
        with pytest.raises(InputError, match=r"blocks.0.x: .* not finite"):
            quantize_weight(weight, weight_format, name="blocks.0.x")


@given(arrays.arrays(np.int8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(-8, 7)))
def test_packing_comes_back(values):
    values = values.astype(ml_dtypes.int4)
    packed = pack_int4(values)
    assert packed.dtype == np.uint8 and packed.shape == packed_shape(values.shape)
    unpacked = unpack_int4(packed, values.shape[-1])
    assert unpacked.dtype == values.dtype and unpacked.tobytes() == values.tobytes()


def test_the_even_one_is_in_the_low_half_as_metas_code_packs():
    packed = pack_int4(np.array([[1, -2, 7]], ml_dtypes.int4))
    assert packed.tolist() == [[0xE1, 0x07]]


def test_calibration_changes_products_less_than_rounding():
    """Inputs that go together, one of them large, one always zero; 200 are no whole blocks."""
    mixing = RANDOM.normal(size=(200, 200)) * np.geomspace(1, 0.02, 200)[:, None]
    inputs = RANDOM.normal(size=(2000, 200)) @ mixing
    inputs[:, 7] *= 30
    inputs[:, 9] = 0
    inputs = inputs.astype(np.float32)
    weight = RANDOM.normal(size=(6, 4, 200)).astype(np.float32)
    gram = jnp.asarray(inputs.T @ inputs)

    def change(tensor):
        return np.square(inputs @ (multiplied_out(tensor) - weight).reshape(24, 200).T).sum()

    calibrated = quantize_calibrated(weight, gram)
    assert calibrated.values.shape == weight.shape and calibrated.scales.shape == (6, 4, 2)
    assert change(calibrated) < 0.2 * change(quantize_weight(weight, WeightFormat.INT4))


def test_calibration_by_inputs_that_do_not_go_together_is_rounding():
    """Then there is nothing to make up for an error with. Whatever the order, the nearest step."""
    weight = RANDOM.normal(size=(8, 160)).astype(np.float32)
    calibrated = quantize_calibrated(weight, jnp.eye(160))
    rounded = quantize_weight(weight, WeightFormat.INT4)
    np.testing.assert_array_equal(calibrated.values.astype(np.int8), rounded.values.astype(np.int8))
    np.testing.assert_array_equal(calibrated.scales, rounded.scales)


def test_calibration_names_what_is_not_finite():
    gram = jnp.eye(128).at[3, 3].set(jnp.nan)
    with pytest.raises(InputError, match="blocks.1.y: "):
        quantize_calibrated(WEIGHT[:, :2], gram, contracted=2, name="blocks.1.y")


def test_recipes_take_what_they_say():
    def taken(name, layer, num_layers=8):
        recipe = RECIPES[name]
        formats = {p: recipe.format_of(f"blocks.{layer}.{p}", num_layers) for p in PRODUCTS}
        return {product: str(found) for product, found in formats.items() if found}

    assert taken("fp8", 0) == taken("fp8", 7) == {}
    assert taken("fp8", 1) == taken("fp8", 6) == dict.fromkeys(FEED_FORWARD_PRODUCTS, "fp8")
    for layer in (0, 3, 7):
        assert taken("int8", layer) == dict.fromkeys(PRODUCTS, "int8")
        in_4 = {p for p, found in taken("int4", layer).items() if found == "int4"}
        assert in_4 == set(FEED_FORWARD_PRODUCTS)
        in_4 = {p for p, found in taken("int8_int4", layer).items() if found == "int4"}
        assert in_4 == {"feed_forward.gate", "feed_forward.up"}
    for name in ("embedding", "head", "final_norm.scale", "blocks.3.attention_norm.scale"):
        assert all(recipe.format_of(name, 8) is None for recipe in RECIPES.values())
    with pytest.raises(InputError, match="'int3' is not one of fp8, int8, int4, int8_int4"):
        recipe_named("int3")
