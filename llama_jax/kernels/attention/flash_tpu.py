"""Attention for TPUs, in Pallas: any interval mask, forward and backward.

What splash attention cannot do: the mask is data. Padding, sliding windows, fewer queries than keys
(a prompt over a cache), documents of any length; blocks that no interval touches are neither
fetched nor computed, and blocks that lie whole in all intervals are computed without a mask. The
heads of a group share each fetched block of keys. O(T) memory. Two kernels, `flash_tpu_forward` and
`flash_tpu_backward`; which blocks meet is worked out in `flash_tpu_blocks`. More keys than have
their gradients in VMEM at once (8192 of 128 numbers) go through the backward kernel in stretches.

No TPU has run it. By the schedules that the compiler makes for v5e, v5p, v6e and tpu7x, waits for
memory left out (`tests/benchmarks/results/tpu_attention.json`: 8192 tokens, 32 heads on 8, of 128,
bfloat16), a causal row takes 1 % more cycles forward than splash attention on v5e, as many on v5p,
14 and 20 % fewer on v6e and tpu7x; backward 2, 13 and 9 % fewer on v5e, v6e and tpu7x, and half on
v5p, where splash leaves one of the two cores idle. Eight packed documents take a quarter forward
and a fifth backward. On v5p the cores share rows of the batch and key heads: one of each keeps only
one core busy backward.

Like every function with its own gradient it has no forward mode (`jax.jvp`), and in `jax.shard_map`
it wants `check_vma=False`. Letters as in `reference.py`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas import tpu as pltpu

from llama_jax.kernels.attention.blocks import pad_to_blocks
from llama_jax.kernels.attention.case import AttentionCase
from llama_jax.kernels.attention.flash_tpu_backward import backward
from llama_jax.kernels.attention.flash_tpu_blocks import (
    DEFAULT_SIZES,
    Blocks,
    Sizes,
    choose_blocks,
    from_rows,
    in_segments,
    intervals_of,
    ranges,
    rows_of,
)
from llama_jax.kernels.attention.flash_tpu_forward import forward
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.attention.saved import ATTENTION

# Rows of a block are at least 128 positions of all heads of a group; 4096 fit.
LARGEST_GROUP = 32


def refusal(case: AttentionCase) -> str | None:
    """Why `case` cannot be computed; None if it can."""
    if case.platform != "tpu":
        return f"it runs on TPUs, not on {case.platform}"
    if case.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes bfloat16 and float32, not {case.dtype}"
    if case.head_dim != 64 and case.head_dim % 128:
        return f"heads are 64 or a multiple of 128 numbers long, not {case.head_dim}"
    if case.num_heads // case.num_kv_heads > LARGEST_GROUP:
        return f"at most {LARGEST_GROUP} query heads share a key head"
    return None


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: IntervalMask,
    *,
    scale: float,
    return_lse: bool = False,
    interpret: bool | pltpu.InterpretParams = False,
    sizes: Sizes = DEFAULT_SIZES,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Same contract as `reference.attention`.

    Args:
      interpret: computes what the kernels would, in plain XLA, on any platform; with parameters, a
        TPU's memories and transfers are simulated.
      sizes: of blocks.
    """
    output, lse = _attention(query, key, value, mask, scale, interpret, sizes)
    return (output, lse) if return_lse else output


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attention(query, key, value, mask, scale, interpret, sizes):
    return _attend(query, key, value, mask, scale, interpret, sizes)


def _forward(query, key, value, mask, scale, interpret, sizes):
    output, lse = _attend(query, key, value, mask, scale, interpret, sizes)
    # Whoever keeps both computes nothing of attention twice (`model/remat.py`).
    output = checkpoint_name(output, ATTENTION)
    lse = checkpoint_name(lse, ATTENTION)
    return (output, lse), (query, key, value, mask, output, lse)


def _backward(scale, interpret, sizes, saved, gradients):
    query, key, value, mask, output, lse = saved
    gradient, lse_gradient = gradients
    B, N, T, H = query.shape
    row_sum = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    blocks = _blocks(query, key, sizes)
    segments, blocks = in_segments(blocks, H)
    mask = _padded_mask(mask, blocks)
    of_rows = [rows_of(_grouped(x, blocks), blocks) for x in (lse, row_sum - lse_gradient)]
    query_rows, gradient_rows = (_grouped(x, blocks) for x in (query, gradient))
    # More than one segment: their shares of the queries' gradient are added up in float32.
    query_dtype = query.dtype if segments == 1 else jnp.float32

    def of_segment(index, key, value):
        first_key = index * key.shape[2]
        here = IntervalMask(mask.key_start - first_key, mask.key_end - first_key)
        return backward(
            query_rows,
            key,
            value,
            intervals_of(here.key_start, blocks),
            intervals_of(here.key_end, blocks),
            gradient_rows,
            *of_rows,
            ranges(here, blocks),
            blocks,
            scale=scale,
            query_dtype=query_dtype,
            interpret=interpret,
        )

    S = key.shape[2]
    length = blocks.num_key_blocks * blocks.keys
    key, value = (pad_to_blocks(x, segments * length, dim=2) for x in (key, value))
    if segments == 1:
        of_query, of_key, of_value = of_segment(0, key, value)
    else:
        key, value = (
            jnp.moveaxis(x.reshape(*x.shape[:2], segments, length, H), 2, 0) for x in (key, value)
        )

        def add_segment(total, inputs):
            of_query, *others = of_segment(*inputs)
            return total + of_query, others

        of_query, others = jax.lax.scan(
            add_segment,
            jnp.zeros(query_rows.shape, jnp.float32),
            (jnp.arange(segments, dtype=jnp.int32), key, value),
        )
        of_key, of_value = (
            jnp.moveaxis(x, 0, 2).reshape(B, -1, segments * length, H) for x in others
        )
    of_query = of_query.reshape(B, N, -1, H)[:, :, :T].astype(query.dtype)
    return of_query, of_key[:, :, :S], of_value[:, :, :S], None


_attention.defvjp(_forward, _backward)


def _attend(query, key, value, mask, scale, interpret, sizes) -> tuple[jax.Array, jax.Array]:
    """The output `[B, N, T, H]`, and the log-sum-exp of the scores, float32 `[B, N, T]`."""
    B, N, T, H = query.shape
    blocks = _blocks(query, key, sizes)
    mask = _padded_mask(mask, blocks)
    output, lse = forward(
        _grouped(query, blocks),
        pad_to_blocks(key, blocks.keys, dim=2),
        pad_to_blocks(value, blocks.keys, dim=2),
        intervals_of(mask.key_start, blocks),
        intervals_of(mask.key_end, blocks),
        ranges(mask, blocks),
        blocks,
        scale=scale,
        interpret=interpret,
    )
    output = output.reshape(B, N, -1, H)[:, :, :T]
    return output, from_rows(lse, blocks).reshape(B, N, -1)[:, :, :T]


def _blocks(query: jax.Array, key: jax.Array, sizes: Sizes) -> Blocks:
    group = query.shape[1] // key.shape[1]
    return choose_blocks(group, query.shape[2], key.shape[2], sizes)


def _grouped(x: jax.Array, blocks: Blocks) -> jax.Array:
    """`[B, N, T, ...]` -> `[B, K, G, T, ...]`, T up to whole blocks."""
    x = pad_to_blocks(x, blocks.queries, dim=2)
    return x.reshape(x.shape[0], -1, blocks.group, *x.shape[2:])


def _padded_mask(mask: IntervalMask, blocks: Blocks) -> IntervalMask:
    """The padding's intervals are empty, and no interval reaches the keys' padding."""
    start, end = (pad_to_blocks(x, blocks.queries, dim=1) for x in (mask.key_start, mask.key_end))
    return IntervalMask(start, end)
