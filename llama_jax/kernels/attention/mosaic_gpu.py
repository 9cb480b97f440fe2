"""Attention for Hopper GPUs, in Pallas (Mosaic GPU): any interval mask, with its log-sum-exp.

What cuDNN's attention cannot do: the mask is data. Padding, sliding windows, fewer queries than
keys, documents of any number and length; blocks that no interval touches are neither fetched nor
computed. O(T) memory. Three kernels: `mosaic_gpu_forward`, and from the log-sum-exp that it leaves
`mosaic_gpu_dq` and `mosaic_gpu_dkv`. Sums are made in one order: the same bits every time.

No GPU has run it: it is interpreted on the CPU in tests, and compiled for Hopper. Whoever has one
takes it by name, and measures it against `cudnn`. Like every function with its own gradient it has
no forward mode (`jax.jvp`), and in `jax.shard_map` it wants `check_vma=False`. Letters as in
`reference.py`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llama_jax.accelerators import is_hopper
from llama_jax.errors import InputError
from llama_jax.kernels.attention.block_ranges import key_block_ranges, query_block_ranges
from llama_jax.kernels.attention.blocks import pad_to_blocks
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.mosaic_gpu_dkv import QUERY_BLOCK as QUERY_BLOCK_OF_KEYS
from llama_jax.kernels.attention.mosaic_gpu_dkv import key_value_gradients
from llama_jax.kernels.attention.mosaic_gpu_dq import query_gradient
from llama_jax.kernels.attention.mosaic_gpu_forward import forward
from llama_jax.kernels.attention.mosaic_gpu_tile import KEY_BLOCK, QUERY_BLOCK
from llama_jax.kernels.attention.saved import ATTENTION


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    if case.platform != "gpu" or not is_hopper(case.device_kind):
        return f"it runs on Hopper GPUs, not on {case.device_kind}"
    if case.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes bfloat16 and float16, not {case.dtype}"
    if case.head_dim not in (64, 128):
        return f"heads are 64 or 128 numbers long, not {case.head_dim}"
    return None


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
    interpret: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Same contract as `reference.attention`; `scale` is positive.

    Args:
      interpret: simulates the kernels on the CPU.
    """
    if not scale > 0:
        raise InputError(f"attention mosaic_gpu: scale must be positive, not {scale}")
    output, lse = _attention(query, key, value, mask, scale, interpret)
    return (output, lse) if return_lse else output


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(query, key, value, mask, scale, interpret):
    return _attend(query, key, value, mask, scale, interpret)


def _forward(query, key, value, mask, scale, interpret):
    output, lse = _attend(query, key, value, mask, scale, interpret)
    # Whoever keeps both computes nothing of attention twice (`model/remat.py`).
    output = checkpoint_name(output, ATTENTION)
    lse = checkpoint_name(lse, ATTENTION)
    return (output, lse), (query, key, value, mask, output, lse)


def _backward(scale, interpret, saved, gradients):
    query, key, value, mask, output, lse = saved
    gradient, lse_gradient = gradients
    T, S = query.shape[2], key.shape[2]
    row_sum = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    # The derivative of the log-sum-exp by a score is its weight, and so joins the row's sum.
    delta = row_sum - lse_gradient
    mask = _in_blocks(mask, S)
    query, gradient, lse, delta = (
        pad_to_blocks(x, QUERY_BLOCK, dim=2) for x in (query, gradient, lse, delta)
    )
    key, value = (pad_to_blocks(x, KEY_BLOCK, dim=2) for x in (key, value))
    arguments = query, key, value, gradient, lse, delta, mask.key_start, mask.key_end
    options = {"scale": scale, "interpret": interpret}
    ranges = key_block_ranges(mask, S, query_block=QUERY_BLOCK, key_block=KEY_BLOCK)
    of_query = query_gradient(*arguments, jnp.stack(ranges, axis=-1), **options)
    ranges = key_block_ranges(mask, S, query_block=QUERY_BLOCK_OF_KEYS, key_block=KEY_BLOCK)
    reverse_ranges = query_block_ranges(ranges, key.shape[2] // KEY_BLOCK)
    of_key, of_value = key_value_gradients(
        *arguments, jnp.stack(reverse_ranges, axis=-1), **options
    )
    return of_query[:, :, :T], of_key[:, :, :S], of_value[:, :, :S], None


_attention.defvjp(_forward, _backward)


def _attend(query, key, value, mask, scale, interpret) -> tuple[jax.Array, jax.Array]:
    """The output `[B, N, T, H]`, and the log-sum-exp of the scores, float32 `[B, N, T]`."""
    T, S = query.shape[2], key.shape[2]
    mask = _in_blocks(mask, S)
    ranges = key_block_ranges(mask, S, query_block=QUERY_BLOCK, key_block=KEY_BLOCK)
    output, lse = forward(
        pad_to_blocks(query, QUERY_BLOCK, dim=2),
        pad_to_blocks(key, KEY_BLOCK, dim=2),
        pad_to_blocks(value, KEY_BLOCK, dim=2),
        mask.key_start,
        mask.key_end,
        jnp.stack(ranges, axis=-1),
        scale=scale,
        interpret=interpret,
    )
    return output[:, :, :T], lse[:, :, :T]


def _in_blocks(mask: IntervalMask, num_keys: int) -> IntervalMask:
    """The same intervals, empty where they hold no key; the padding's are empty."""
    start = jnp.maximum(mask.key_start, 0).astype(jnp.int32)
    end = jnp.minimum(mask.key_end, num_keys).astype(jnp.int32)
    return IntervalMask(*(pad_to_blocks(x, QUERY_BLOCK, dim=1) for x in (start, end)))
