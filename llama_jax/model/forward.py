"""The model as pure functions over a plain nested dict of arrays.

    params = init_params(config, jax.random.key(0))
    hidden = forward(params, tokens, config=config)
    scores = logits(params, hidden, config=config)

The dtype of the parameters is the dtype of the computation, unless `forward` is told otherwise;
norms, RoPE, softmax and logits are float32 inside either way.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llama_jax.config import DynamicNtkScaling, ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.attention.mask import causal_mask, packed_mask
from llama_jax.kernels.operators import REFERENCE, Operators
from llama_jax.model.remat import REMAT_POLICIES
from llama_jax.model.rope import rope_angles
from llama_jax.model.transformer import Transformer

Params = dict[str, Any]


def init_params(config: ModelConfig, key: jax.Array, *, dtype: jnp.dtype = jnp.float32) -> Params:
    """Random parameters; layers are stacked on the first dimension of each leaf of `blocks`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), nn.unbox(init_boxed(config, key)))


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
    dtype: jnp.dtype | None = None,
    remat: str = "none",
) -> jax.Array:
    """Hidden states after the final norm.

    Args:
      params: from `init_params` or `load_checkpoint`; `blocks` stacked, or a tuple of layers.
      tokens: int `[B, T]`.
      positions: int `[B, T]`; by default they count from 0 in each row, or in each document.
      segment_ids: int `[B, T]`; runs of equal ids are documents that do not see each other.
      dtype: of the activations, by default that of the embedding. Weights of another dtype are
        cast where they are used, and their gradients keep the weights' own dtype.
      remat: what the backward pass keeps, one of `REMAT_POLICIES`; other than none for stacked
        blocks only.

    Returns:
      `[B, T, D]` in `dtype`.

    Raises:
      InputError: packed documents with `DynamicNtkScaling`; a `remat` that is unknown, or not for
        these blocks.
    """
    if remat not in REMAT_POLICIES:
        raise InputError(f"remat {remat!r} is not one of {', '.join(REMAT_POLICIES)}")
    if remat != "none" and isinstance(params["blocks"], tuple):
        raise InputError(f"remat {remat!r} is for stacked blocks, and these are a tuple of layers")
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
    transformer = Transformer(config, operators, dtype, remat)
    return transformer.apply({"params": params}, tokens, angles, mask)


def logits(params: Params, hidden: jax.Array, *, config: ModelConfig) -> jax.Array:
    """float32 `[..., V]` scores of the next token from hidden states `[..., D]`."""
    head = output_head(params, config=config)
    return jnp.einsum(
        "...D,VD->...V", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32
    )


def rewards(params: Params, hidden: jax.Array, *, config: ModelConfig) -> jax.Array:
    """float32 `[...]` rewards from hidden states `[..., D]`: at the last token of a text, what a
    reward model gives the text.

    Raises `InputError` if the model is none.
    """
    if not config.reward_head:
        raise InputError(
            "this model has no reward head, so it gives no scores; train it by the loss "
            "BradleyTerry first"
        )
    # Sums and not a product of matrices, which on accelerators may round a float32.
    return jnp.sum(hidden.astype(jnp.float32) * params["reward_head"].astype(jnp.float32), axis=-1)


def output_head(params: Params, *, config: ModelConfig) -> jax.Array:
    """The head `[V, D]`: the embedding where the two are tied.

    Raises `InputError` if the model is a reward model.
    """
    refuse_reward_model(config, "this model")
    return params["embedding"] if config.tied_embeddings else params["head"]


def refuse_reward_model(config: ModelConfig, name: str) -> None:
    """Raises `InputError` if the model `name` is a reward model, which cannot answer."""
    if config.reward_head:
        raise InputError(
            f"{name}: is a reward model, which scores texts and predicts none; give the policy, or "
            "use llama-jax score"
        )


def init_boxed(config: ModelConfig, key: jax.Array) -> Params:
    """float32 parameters that carry their logical axis names."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    angles, mask = rope_angles(tokens, config), causal_mask(1, 1)
    return Transformer(config, REFERENCE).init(key, tokens, angles, mask)["params"]
