"""The narrow number formats and the one place that scales, clips and casts to them.

A scale is what a stored number is multiplied with to be what it stands for: `x = values * scale`.
The largest magnitude of whatever shares the scale (a tensor, a row) becomes the largest number of
the format; a narrow format has few exponents, and everything far below is lost.

JAX's `astype` does not saturate: 1000 becomes NaN in float8_e4m3fn and 1e6 becomes infinity in
float8_e5m2, so every cast to them clips first. What was NaN or infinite before comes out NaN: its
scale is NaN too, so that integers, which have no NaN, do not hide it.

`float8_e4m3fn` (1 sign, 4 exponent, 3 mantissa bits; no infinity): arXiv 2209.05433, table 1, where
`float8_e5m2` stands too. Both are exact in bfloat16.
"""

import jax
import jax.numpy as jnp

E4M3, E5M2 = jnp.dtype(jnp.float8_e4m3fn), jnp.dtype(jnp.float8_e5m2)
INT8 = jnp.dtype(jnp.int8)
E4M3_MAX, E5M2_MAX = 448.0, 57344.0
# Symmetric: -128 is not used, so that a sign is never lost. (int4 has a way of its own, with the
# sign in the scale: `quantize.py`.)
INT8_MAX = 127.0
# Upper bound of an activation row's magnitude in Meta's FP8 inference: llama-models,
# `fp8_activation_scale_ub`. Larger activations are clipped and the others keep their precision.
META_ROW_BOUND = 1200.0

_LARGEST = {E4M3: E4M3_MAX, E5M2: E5M2_MAX, INT8: INT8_MAX}
# Magnitudes below are scaled as if they were this: the scale stays a normal float32 and dividing by
# it finite. A row of zeros stays zeros. 1e-30 is far below any gradient of a model.
_SMALLEST_AMAX = 1e-30
_FLOAT32_MAX = float(jnp.finfo(jnp.float32).max)


def largest(dtype: jnp.dtype) -> float:
    """The largest magnitude that is used of a narrow format. `ValueError` for any other dtype."""
    dtype = jnp.dtype(dtype)
    if dtype not in _LARGEST:
        raise ValueError(f"{dtype} is not one of {', '.join(map(str, _LARGEST))}")
    return _LARGEST[dtype]


def scale_of(
    amax: jax.Array, dtype: jnp.dtype, *, bound: float | None = None, power_of_two: bool = False
) -> jax.Array:
    """The scale that takes magnitudes up to `amax` to the numbers of `dtype`.

    Args:
      amax: largest magnitudes, of any shape.
      dtype: a narrow format.
      bound: magnitudes above it are clipped (`META_ROW_BOUND`); None clips nothing.
      power_of_two: rounds the scale up to a power of two, so that scaling rounds nothing.

    Returns:
      float32 of the shape of `amax`; NaN where `amax` is NaN or infinite.
    """
    amax = amax.astype(jnp.float32)
    used = jnp.maximum(amax, _SMALLEST_AMAX)
    if bound is not None:
        used = jnp.minimum(used, bound)
    scale = used / largest(dtype)
    if power_of_two:
        # Carries any mantissa bit into the exponent and drops the mantissa.
        bits = jax.lax.bitcast_convert_type(scale, jnp.int32)
        scale = jax.lax.bitcast_convert_type((bits + 0x7FFFFF) & 0x7F800000, jnp.float32)
    # A comparison, false for NaN too: Mosaic GPU has no `is_finite`.
    return jnp.where(amax <= _FLOAT32_MAX, scale, jnp.nan)


def magnitude(x: jax.Array) -> jax.Array:
    """`abs(x)`, infinite where `x` is NaN, so that it is the largest.

    XLA's maximum over a long row loses NaN on CPUs (0.10.2 and 0.12: of 2048 numbers, not of 64).
    """
    return jnp.where(x == x, jnp.abs(x), jnp.inf)


def tensor_scale(x: jax.Array, dtype: jnp.dtype, *, power_of_two: bool = False) -> jax.Array:
    """One scale for all of `x`: float32 `[]`."""
    return scale_of(jnp.max(magnitude(x)), dtype, power_of_two=power_of_two)


def row_scale(
    x: jax.Array,
    dtype: jnp.dtype,
    *,
    axes: int | tuple[int, ...] = -1,
    bound: float | None = None,
    power_of_two: bool = False,
) -> jax.Array:
    """A scale for each row, a row being what `axes` run through: float32 `[...]` without `axes`."""
    return scale_of(jnp.max(magnitude(x), axes), dtype, bound=bound, power_of_two=power_of_two)


def to_format(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` clipped to the format's range, rounded to the nearest number (ties to even) and cast.

    NaN stays NaN in the floating formats; an integer cannot say it, its scale must.
    """
    limit = largest(dtype)
    x = jnp.clip(x.astype(jnp.float32), -limit, limit)
    return (jnp.rint(x) if jnp.issubdtype(dtype, jnp.integer) else x).astype(dtype)


def quantize(
    x: jax.Array, scale: jax.Array, dtype: jnp.dtype, *, axes: int | tuple[int, ...] = ()
) -> jax.Array:
    """`x / scale` in `dtype`; `scale` lacks the dimensions `axes` of `x`, as `row_scale`'s does."""
    return to_format(x.astype(jnp.float32) / jnp.expand_dims(scale, axes), dtype)


def quantize_rows(
    x: jax.Array,
    dtype: jnp.dtype,
    *,
    axes: int | tuple[int, ...] = -1,
    bound: float | None = None,
    power_of_two: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`x` in `dtype` with a scale a row: values of the shape of `x`, scales without `axes`."""
    scale = row_scale(x, dtype, axes=axes, bound=bound, power_of_two=power_of_two)
    return quantize(x, scale, dtype, axes=axes), scale


def quantize_tensor(
    x: jax.Array, dtype: jnp.dtype, *, power_of_two: bool = False
) -> tuple[jax.Array, jax.Array]:
    """`x` in `dtype` with one scale: values of the shape of `x`, scale float32 `[]`."""
    scale = tensor_scale(x, dtype, power_of_two=power_of_two)
    return quantize(x, scale, dtype), scale
