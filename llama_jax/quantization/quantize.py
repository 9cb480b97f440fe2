"""One weight to few bits, some rows at a time.

`fp8` and `int8` take the scale from the largest magnitude of an output channel. With 4 bits that
wastes what is scarce: a group has sixteen numbers, and the scale that loses least cuts its largest
weights a little. So every group tries a ladder of scales and keeps the one with the smallest sum of
squared errors. A scale may be negative: int4 reaches down to -8 and up to 7, and the sign says on
which side of the group the eighth step lies.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import InputError
from llama_jax.quantization.number_formats import E4M3, INT8, quantize_rows
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

INT4_LOWEST, INT4_HIGHEST = -8, 7
# Scales that are tried, as shares of the one that reaches the largest magnitude of the group.
_LADDER = np.linspace(0.55, 1.1, 23)
_PART_BYTES = 64 * 2**20  # of float32, a part of the rows that is quantised at once

VALUE_DTYPES = {
    WeightFormat.FP8: E4M3,
    WeightFormat.INT8: INT8,
    WeightFormat.INT4: jnp.dtype(jnp.int4),
}


def scales_shape(
    shape: tuple[int, ...], weight_format: WeightFormat, contracted: int
) -> tuple[int, ...]:
    """The shape of the scales of a weight of `shape`, whose last `contracted` dimensions are its
    inputs."""
    outputs = shape[: len(shape) - contracted]
    if weight_format is not WeightFormat.INT4:
        return outputs
    return (*outputs, -(-math.prod(shape[len(outputs) :]) // INT4_GROUP))


def quantize_weight(
    weight: np.ndarray, weight_format: WeightFormat, *, contracted: int = 1, name: str = "weight"
) -> QuantizedTensor:
    """`weight` with numpy arrays for values and scales.

    Beside the result, memory holds a few copies of 64 MiB of its rows.

    Args:
      weight: `[out..., in...]`, any float dtype.
      contracted: how many trailing dimensions are inputs.
      name: of the weight, for errors.

    Raises `InputError` for a weight that is not finite.
    """
    rows = weight.reshape(-1, math.prod(weight.shape[weight.ndim - contracted :]))
    values = np.empty(rows.shape, VALUE_DTYPES[weight_format])
    scales = np.empty(scales_shape(rows.shape, weight_format, 1), np.float32)
    step = max(1, _PART_BYTES // (4 * rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        values[part], scales[part] = _quantize_rows(jnp.asarray(rows[part]), weight_format)
    if not np.all(np.isfinite(scales)):
        raise InputError(f"{name}: has values that are not finite; the weights are damaged")
    return QuantizedTensor(
        values.reshape(weight.shape),
        scales.reshape(scales_shape(weight.shape, weight_format, contracted)),
        weight_format,
    )


@functools.partial(jax.jit, static_argnums=1)
def _quantize_rows(rows: jax.Array, weight_format: WeightFormat) -> tuple[jax.Array, jax.Array]:
    """`[out, in]` to values `[out, in]` and scales `[out]` or `[out, groups]`."""
    if weight_format is not WeightFormat.INT4:
        return quantize_rows(rows, VALUE_DTYPES[weight_format])
    groups = in_groups(rows.astype(jnp.float32))
    scales = best_scales(groups, jnp.ones_like(groups[:1]))
    values = round_to_int4(groups, scales[..., None])
    values = values.reshape(len(rows), -1)[:, : rows.shape[1]]
    return values.astype(jnp.int4), scales


def in_groups(rows: jax.Array) -> jax.Array:
    """`[out, in]` as `[out, groups, INT4_GROUP]`, filled up with zeros."""
    padding = -rows.shape[1] % INT4_GROUP
    return jnp.pad(rows, ((0, 0), (0, padding))).reshape(len(rows), -1, INT4_GROUP)


def round_to_int4(x: jax.Array, scales: jax.Array) -> jax.Array:
    """The nearest steps, as floats; a scale of 0 belongs to zeros."""
    steps = jnp.rint(x / jnp.where(scales == 0, 1, scales))
    return jnp.clip(steps, INT4_LOWEST, INT4_HIGHEST)


def best_scales(groups: jax.Array, importance: jax.Array) -> jax.Array:
    """The scale of each group, of the ladder, with the least sum of squared errors.

    Args:
      groups: float32 `[out, groups, INT4_GROUP]`.
      importance: what an error in an input counts, to be broadcast to `groups`.

    Returns:
      float32 `[out, groups]`; NaN where a group or its importance is not finite.
    """
    amax = jnp.max(jnp.abs(groups), -1)
    # The middle of the ladder's reach: a scale of amax / 7.5 cuts nothing by more than half a step.
    candidates = jnp.asarray(np.concatenate([_LADDER, -_LADDER]) / 7.5, jnp.float32)

    def attempt(best, share):
        scales, errors = best
        tried = amax * share
        error = groups - round_to_int4(groups, tried[..., None]) * tried[..., None]
        error = jnp.sum(jnp.square(error) * importance, -1)
        better = error < errors
        return (jnp.where(better, tried, scales), jnp.where(better, error, errors)), None

    start = (jnp.zeros_like(amax), jnp.full_like(amax, jnp.inf))
    (scales, _), _ = jax.lax.scan(attempt, start, candidates)
    # Looked for by itself: the maximum of a long row may lose a NaN on its way.
    is_finite = jnp.all(jnp.isfinite(groups) & jnp.isfinite(importance), -1)
    return jnp.where(is_finite, scales, jnp.nan)
