"""Scales and casts: finite numbers stay finite, and what is not finite is never hidden."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llama_jax.quantization import number_formats as formats

DTYPES = [formats.E4M3, formats.E5M2, formats.INT8]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# float32's whole range but its subnormals, which a device may flush to zero.
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
# One shape: another one compiles again.
MATRICES = arrays(np.float32, (2, 3, 4), elements=FINITE)


def restored(values, scale, axes=()):
    return np.float64(values) * np.expand_dims(np.float64(scale), axes)


def error_bound(x, scale, dtype):
    """Half a unit in the last place, relative to a number and at least that of the smallest, with
    float32's own error of scaling."""
    if dtype == formats.INT8:
        return np.full(x.shape, 0.5001) * scale
    smallest = float(jnp.finfo(dtype).smallest_subnormal)
    relative = 2.0 ** -(jnp.finfo(dtype).nmant + 1)
    return np.maximum(np.abs(x) * relative, 0.5 * smallest * scale) * 1.00001


@every_dtype
@given(x=MATRICES)
def test_any_finite_rows_come_back_within_half_a_unit_in_the_last_place(dtype, x):
    values, scale = formats.quantize_rows(x, dtype)
    assert values.dtype == dtype and values.shape == x.shape
    assert scale.dtype == jnp.float32 and scale.shape == x.shape[:-1]
    assert np.all(np.isfinite(scale)) and np.all(np.isfinite(np.float32(values)))
    error = np.abs(restored(values, scale, -1) - x)
    assert np.all(error <= error_bound(x, np.float64(scale)[..., None], dtype))


@every_dtype
@pytest.mark.parametrize("power_of_two", [False, True])
@given(x=MATRICES)
def test_any_finite_tensor_uses_the_range_of_the_format(dtype, power_of_two, x):
    values, scale = formats.quantize_tensor(x, dtype, power_of_two=power_of_two)
    used, amax = np.max(np.abs(np.float32(values))), np.max(np.abs(x))
    if amax < 1e-30:
        assert used <= formats.largest(dtype)
    elif power_of_two:
        assert np.frexp(scale)[0] == 0.5
        assert formats.largest(dtype) / 2 * 0.9 <= used <= formats.largest(dtype)
    else:
        assert used == formats.largest(dtype)
    error = np.abs(restored(values, scale) - x)
    assert np.all(error <= error_bound(x, np.float64(scale), dtype))


@every_dtype
@given(x=MATRICES)
def test_what_is_larger_never_becomes_smaller(dtype, x):
    ordered = np.sort(x, axis=-1)
    values = np.float32(formats.quantize_rows(ordered, dtype)[0])
    assert np.all(np.diff(values, axis=-1) >= 0)


@every_dtype
def test_a_row_of_zeros_stays_zeros_beside_one_that_is_not(dtype):
    x = jnp.array([[0.0, 0.0], [0.0, 3.0], [-0.0, 0.0]])
    values, scale = formats.quantize_rows(x, dtype)
    assert np.all(np.isfinite(scale)) and np.all(np.asarray(scale) > 0)
    np.testing.assert_allclose(restored(values, scale, -1), x, rtol=1e-6)


@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_what_is_not_finite_comes_out_nan_and_only_in_its_row(dtype, bad, power_of_two):
    # A long row: XLA's maximum loses NaN in it on CPUs.
    x = jnp.ones((2, 2048)).at[0, 1].set(bad)
    for bound in (None, formats.META_ROW_BOUND):
        values, scale = formats.quantize_rows(x, dtype, bound=bound, power_of_two=power_of_two)
        back = restored(values, scale, -1)
        assert np.all(np.isnan(back[0])) and np.all(np.isfinite(back[1]))


def test_a_bound_clips_the_row_and_keeps_the_precision_of_the_others():
    x = jnp.array([[1200.0, 50.0, -3e4], [3.0, 1.0, 2.0]])
    values, scale = formats.quantize_rows(x, formats.E4M3, bound=1200.0)
    back = restored(values, scale, -1)
    np.testing.assert_allclose(back[0, [0, 2]], [1200.0, -1200.0], rtol=1e-6)
    # 50 of a row bounded by 1200 has e4m3's precision of 1 in 16.
    np.testing.assert_allclose(back[0, 1], 50.0, rtol=1 / 16)
    np.testing.assert_array_equal(values[1:], formats.quantize_rows(x[1:], formats.E4M3)[0])


def test_rows_may_run_through_several_or_the_first_dimensions():
    x = jnp.arange(1.0, 25.0).reshape(2, 3, 4)
    for axes in (0, (0, 1), (1, 2)):
        values, scale = formats.quantize_rows(x, formats.E4M3, axes=axes)
        np.testing.assert_allclose(scale, np.max(np.asarray(x), axes) / 448.0, rtol=1e-6)
        np.testing.assert_allclose(restored(values, scale, axes), x, rtol=1 / 16)


@pytest.mark.parametrize("dtype", [formats.E4M3, formats.E5M2], ids=str)
def test_numbers_over_the_range_are_clipped_and_not_cast_to_nan_or_infinity(dtype):
    x = jnp.array([1e6, -1e6, 3e38, 449.0])
    expected = np.clip(x, -formats.largest(dtype), formats.largest(dtype))
    got = np.float32(formats.to_format(x, dtype))
    np.testing.assert_allclose(got, expected, rtol=1 / 8)  # e5m2 has two bits after the point


@pytest.mark.parametrize("dtype", [formats.E4M3, formats.E5M2], ids=str)
def test_every_number_of_a_floating_format_is_its_own_nearest(dtype):
    numbers = np.arange(256, dtype=np.uint8).view(dtype)
    numbers = numbers[np.isfinite(np.float32(numbers))]
    again = np.asarray(formats.to_format(jnp.float32(np.float32(numbers)), dtype))
    np.testing.assert_array_equal(again.view(np.uint8), numbers.view(np.uint8))
    assert np.max(np.float32(numbers)) == formats.largest(dtype)


def test_a_format_that_is_not_narrow_is_refused():
    with pytest.raises(ValueError, match="float16 is not one of float8_e4m3fn"):
        formats.to_format(jnp.ones(3), jnp.float16)
