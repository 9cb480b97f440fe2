"""The forward pass over a cache in pages: chunks of prompts, and decoding (T = 1)."""

import jax
import jax.numpy as jnp

from llama_jax.config import DynamicNtkScaling, ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.operators import REFERENCE, Operators
from llama_jax.kernels.paged_attention.pages import KVPages, init_pages
from llama_jax.model.block import Block
from llama_jax.model.forward import Params
from llama_jax.model.paged_cache import PagedLayerCache, RowPages
from llama_jax.model.rms_norm import RMSNorm
from llama_jax.model.rope import rope_angles


def init_page_pool(
    config: ModelConfig, num_pages: int, page_size: int, dtype: jnp.dtype
) -> tuple[KVPages, ...]:
    """Empty pages of every layer; page p of each holds the same tokens.

    Raises `InputError` for a dtype that pages cannot have.
    """
    return tuple(
        init_pages(num_pages, page_size, config.num_kv_heads, config.head_dim, dtype)
        for _ in range(config.num_layers)
    )


def forward_paged(
    params: Params,
    tokens: jax.Array,
    pages: tuple[KVPages, ...],
    rows: RowPages,
    *,
    config: ModelConfig,
    operators: Operators = REFERENCE,
) -> tuple[jax.Array, tuple[KVPages, ...]]:
    """Hidden states of the last T tokens of each row, and the pages with them in it.

    Args:
      params: from `unstack_blocks`.
      tokens: int `[B, T]`, at the positions `rows.positions(T)`.
      pages: of every layer, from `init_page_pool` or an earlier call; donate them.

    Returns:
      `[B, T, D]` after the final norm (meaningless at padding), and the pages.

    Raises:
      InputError: for `DynamicNtkScaling`, which rotates every token of a row anew as it grows, so
        that pages would not stay true.
    """
    if isinstance(config.rope_scaling, DynamicNtkScaling):
        raise InputError(
            "dynamic NTK scaling changes the rotation of tokens already cached: such a model is "
            "answered by llama-jax generate, not by the engine"
        )
    positions = jnp.maximum(rows.positions(tokens.shape[1]), 0)
    angles = rope_angles(positions, config)
    written = []
    x = params["embedding"][tokens]
    for index, layer_params in enumerate(params["blocks"]):
        block = Block(config, operators.of_block(index, config.num_layers))
        cache = PagedLayerCache(pages[index], rows)
        x, cache = block.apply({"params": layer_params}, x, angles, None, cache)
        written.append(cache.pages)
    hidden = RMSNorm(config.norm_eps).apply({"params": params["final_norm"]}, x)
    return hidden, tuple(written)
