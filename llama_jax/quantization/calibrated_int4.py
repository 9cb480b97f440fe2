"""Rounding a weight to int4 so that its products change least: GPTQ (arXiv 2210.17323).

Rounding each weight to its nearest step forgets that an output is a sum: the error of one input's
weight can be made up for in those that are still to be rounded. How much follows from the second
moments of the inputs over some calibration text, the gram matrix `X X^T`. With 135 million weights
that is most of the way back: see `tests/quantization/test_smollm2_quantized.py`.

Groups have their scales before the first input is rounded, by the ladder of `quantize.py` with
errors counted by the inputs' sizes, so inputs may be rounded in the order of their size, the
largest first (`act_order` with static groups, as later versions of the authors' code).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import InputError
from llama_jax.quantization.quantize import best_scales, in_groups, round_to_int4
from llama_jax.quantization.quantized_tensor import INT4_GROUP, QuantizedTensor, WeightFormat

# Added to the diagonal of the gram matrix, as a share of its mean: GPTQ's own default.
_DAMPING = 0.01
# Inputs whose errors are spread among themselves before the rest of the weight hears of them.
_BLOCK = 64


def quantize_calibrated(
    weight: np.ndarray,
    gram: jax.Array,
    *,
    contracted: int = 1,
    name: str = "weight",
) -> QuantizedTensor:
    """`weight` in int4 with numpy arrays for values and scales.

    Args:
      weight: `[out..., in...]`, any float dtype.
      gram: float32 `[in, in]`, `X X^T` of the inputs.
      contracted: how many trailing dimensions are inputs.
      name: of the weight, for errors.

    Raises `InputError` for a weight or inputs that are not finite.
    """
    rows = jnp.asarray(weight, jnp.float32).reshape(-1, gram.shape[0])
    values, scales = _round(rows, gram)
    if not np.all(np.isfinite(scales)):
        raise InputError(f"{name}: it or its inputs are not finite; the weights are damaged")
    outputs = weight.shape[: weight.ndim - contracted]
    return QuantizedTensor(
        np.asarray(values).reshape(weight.shape),
        np.asarray(scales).reshape(*outputs, -1),
        WeightFormat.INT4,
    )


@jax.jit
def _round(rows, gram) -> tuple[jax.Array, jax.Array]:
    num_inputs = len(gram)
    size = jnp.diag(gram)
    # An input that is always zero has a size then too; its weight changes nothing.
    importance = size + _DAMPING * jnp.mean(size) + jnp.finfo(jnp.float32).tiny
    gram = gram + jnp.diag(importance - size)
    padding = -num_inputs % INT4_GROUP
    by_group = jnp.pad(importance, (0, padding)).reshape(1, -1, INT4_GROUP)
    scales = best_scales(in_groups(rows), by_group)
    of_input = jnp.repeat(scales, INT4_GROUP, axis=1)[:, :num_inputs]

    order = jnp.argsort(-importance)
    steps = _gptq(rows[:, order], gram[order][:, order], of_input[:, order])
    values = jnp.zeros_like(steps).at[:, order].set(steps)
    return values.astype(jnp.int4), scales


def _gptq(rows: jax.Array, gram: jax.Array, scales: jax.Array) -> jax.Array:
    """Steps `[out, in]` for `rows`, from the first input to the last; `scales` `[out, in]`."""
    num_rows, num_inputs = rows.shape
    # Row j says how the error of input j, over its diagonal, is made up for by the inputs after it.
    spread = jnp.linalg.cholesky(jnp.linalg.inv(gram), upper=True)
    # Inputs first, so that one is contiguous. Whole blocks: inputs that are not there have weight 0
    # and bother nobody.
    padding = -num_inputs % _BLOCK
    weights, scales = (jnp.pad(array.T, ((0, padding), (0, 0))) for array in (rows, scales))
    spread = jnp.pad(spread, ((0, padding), (0, padding)))
    spread += jnp.diag(jnp.where(jnp.arange(num_inputs + padding) < num_inputs, 0.0, 1.0))

    def block(number, carry):
        weights, steps = carry
        at = number * _BLOCK
        cut = functools.partial(
            jax.lax.dynamic_slice, start_indices=(at, 0), slice_sizes=(_BLOCK, num_rows)
        )
        within = jax.lax.dynamic_slice(spread, (at, at), (_BLOCK, _BLOCK))
        scale = cut(scales)

        def one_input(j, carry):
            part, steps, errors = carry
            step = round_to_int4(part[j], scale[j])
            error = (part[j] - step * scale[j]) / within[j, j]
            later = jnp.where(jnp.arange(_BLOCK) > j, within[j], 0)
            part -= later[:, None] * error
            return part, steps.at[j].set(step), errors.at[j].set(error)

        part = cut(weights)
        start = (part, jnp.zeros_like(part), jnp.zeros_like(part))
        _, part_steps, errors = jax.lax.fori_loop(0, _BLOCK, one_input, start)
        below = jax.lax.dynamic_slice(spread, (at, 0), (_BLOCK, num_inputs + padding))
        # Inputs up to the end of this block are rounded; what is added to them is never read.
        weights -= below.T @ errors
        return weights, jax.lax.dynamic_update_slice(steps, part_steps, (at, 0))

    num_blocks = (num_inputs + padding) // _BLOCK
    _, steps = jax.lax.fori_loop(0, num_blocks, block, (weights, jnp.zeros_like(weights)))
    return steps[:num_inputs].T
