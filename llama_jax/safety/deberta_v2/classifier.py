"""The classifier as pure functions over a plain nested dict of arrays."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.errors import InputError
from llama_jax.safety.deberta_v2.config import DebertaConfig
from llama_jax.safety.deberta_v2.distances import distance_rows
from llama_jax.safety.deberta_v2.encoder import Classifier

Params = dict[str, Any]


def init_params(config: DebertaConfig, key: jax.Array) -> Params:
    """Random float32 parameters; layers are stacked on the first dimension of `blocks`."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    rows, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    return Classifier(config).init(key, tokens, rows, mask)["params"]


def abstract_params(config: DebertaConfig) -> Params:
    """`jax.ShapeDtypeStruct`s of `init_params`, without allocating anything."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def classify(
    params: Params, tokens: jax.Array, mask: jax.Array, *, config: DebertaConfig
) -> jax.Array:
    """Scores of the classes before softmax, float32 `[B, C]`; compiled once for each shape.

    Args:
      tokens: int `[B, T]`, with the special tokens that begin and end a text.
      mask: bool `[B, T]`, False for padding. A row has one token at least.

    Raises `InputError` for texts that are longer than the model's context.
    """
    if tokens.shape[1] > config.context_length:
        raise InputError(
            f"a text of {tokens.shape[1]} tokens is over the classifier's context of "
            f"{config.context_length}: cut it into windows"
        )
    return _classify(params, tokens, mask, config=config)


@partial(jax.jit, static_argnames="config")
def _classify(params, tokens, mask, *, config):
    rows = jnp.asarray(distance_rows(tokens.shape[1], config))
    return Classifier(config).apply({"params": params}, tokens, rows, mask)
