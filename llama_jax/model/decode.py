"""The forward pass over a cache: one function for prefill (many tokens) and decoding (one).

Layers are unrolled, unlike in training: a scan would have to copy the cache. Weights are therefore
wanted unstacked, a tuple of per-layer dicts, since slicing a stacked weight is a copy on some
platforms.
"""

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.mask import IntervalMask
from llama_jax.kernels.operators import REFERENCE, Operators
from llama_jax.model.block import Block
from llama_jax.model.forward import Params
from llama_jax.model.kv_cache import KVCache
from llama_jax.model.rms_norm import RMSNorm
from llama_jax.model.rope import rope_angles


def unstack_blocks(params: Params) -> Params:
    """`params` with `blocks` as a tuple of L per-layer dicts, for `forward_cached`.

    Copies every layer; run it under `jax.jit` with donation where memory is short.
    """
    blocks = params["blocks"]
    num_layers = jax.tree.leaves(blocks)[0].shape[0]
    layers = tuple(jax.tree.map(lambda leaf: leaf[i], blocks) for i in range(num_layers))  # noqa: B023
    return {**params, "blocks": layers}


def forward_cached(
    params: Params,
    tokens: jax.Array,
    cache: KVCache,
    *,
    config: ModelConfig,
    operators: Operators = REFERENCE,
) -> tuple[jax.Array, KVCache]:
    """Hidden states of the next T tokens of each row, and the cache with them in it.

    The caller keeps `cache.length + T` within the slots: a write past the end would be clamped onto
    earlier tokens.

    Args:
      params: from `unstack_blocks`.
      tokens: int `[B, T]`; shorter rows are padded at the left, `cache.first` counts that.
      cache: from `init_cache` or an earlier call.

    Returns:
      `[B, T, D]` after the final norm (meaningless at padding), and the extended cache.
    """
    B, T = tokens.shape
    slots = cache.length + jnp.arange(T, dtype=jnp.int32)
    positions = jnp.maximum(slots - cache.first[:, None], 0)
    angles = rope_angles(positions, config)
    mask = IntervalMask(
        key_start=jnp.broadcast_to(cache.first[:, None], (B, T)),
        key_end=jnp.broadcast_to(slots + 1, (B, T)),
    )
    keys, values = [], []
    x = params["embedding"][tokens]
    for index, layer_params in enumerate(params["blocks"]):
        layer_cache = cache.layer(index)
        block = Block(config, operators.of_block(index, config.num_layers))
        x, layer_cache = block.apply({"params": layer_params}, x, angles, mask, layer_cache)
        keys.append(layer_cache.keys)
        values.append(layer_cache.values)
    hidden = RMSNorm(config.norm_eps).apply({"params": params["final_norm"]}, x)
    return hidden, KVCache(tuple(keys), tuple(values), cache.first, cache.length + T)
