"""The model as pure functions over a plain nested dict of arrays.

    params = init_params(config, jax.random.key(0))
    hidden = forward(params, tokens, config=config)
    scores = logits(params, hidden, config=config)

The dtype of the parameters is the dtype of the computation; norms, RoPE, softmax and logits are
float32 inside either way.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.config import DynamicNtkScaling, ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.attention.mask import causal_mask, packed_mask
from llama_jax.model.operators import REFERENCE, Operators
from llama_jax.model.rope import rope_angles
from llama_jax.model.transformer import Transformer

Params = dict[str, Any]


def init_params(config: ModelConfig, key: jax.Array, *, dtype: jnp.dtype = jnp.float32) -> Params:
    """Random parameters; layers are stacked on the first dimension of each leaf of `blocks`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), nn.unbox(_init(config, key)))


def abstract_params(config: ModelConfig, *, dtype: jnp.dtype = jnp.float32) -> Params:
    """`jax.ShapeDtypeStruct`s of `init_params`, without allocating anything."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), dtype=dtype))


def forward(
    params: Params,
    tokens: jax.Array,
    *,
    config: ModelConfig,
    operators: Operators = REFERENCE,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """Hidden states after the final norm.

    Args:
      params: from `init_params` or `load_checkpoint`.
      tokens: int `[B, T]`.
      positions: int `[B, T]`; by default they count from 0 in each row, or in each document.
      segment_ids: int `[B, T]`; runs of equal ids are documents that do not see each other.

    Returns:
      `[B, T, D]` in the dtype of `params`.

    Raises:
      InputError: packed documents with `DynamicNtkScaling`.
    """
    if segment_ids is not None and isinstance(config.rope_scaling, DynamicNtkScaling):
        raise InputError(
            "dynamic NTK scaling depends on the length of a row, so packed documents would change "
            "each other: give each document a row of its own"
        )
    B, T = tokens.shape
    mask = causal_mask(B, T) if segment_ids is None else packed_mask(segment_ids)
    if positions is None:
        positions = jnp.arange(T, dtype=jnp.int32) - mask.key_start
    angles = rope_angles(positions, config)
    return Transformer(config, operators).apply({"params": params}, tokens, angles, mask)


def logits(params: Params, hidden: jax.Array, *, config: ModelConfig) -> jax.Array:
    """float32 `[..., V]` scores of the next token from hidden states `[..., D]`."""
    head = params["embedding"] if config.tied_embeddings else params["head"]
    return jnp.einsum("...D,VD->...V", hidden, head, preferred_element_type=jnp.float32)


def _init(config: ModelConfig, key: jax.Array) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    angles, mask = rope_angles(tokens, config), causal_mask(1, 1)
    return Transformer(config, REFERENCE).init(key, tokens, angles, mask)["params"]
