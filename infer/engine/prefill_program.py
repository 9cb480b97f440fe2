"""Prompts on the device: one chunk of several rows into their pages.

The last token of a prompt is not prefilled: decoding begins with it. So no chunk needs logits, and
every token that is ever chosen comes from one family of programs.

R rows, T tokens of a chunk.
"""

from typing import Any

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Operators, Params, RowPages, forward_paged


def prefill(
    params: Params,
    pages: tuple[KVPages, ...],
    tokens: jax.Array,
    rows: RowPages,
    *,
    config: ModelConfig,
    operators: Operators,
) -> tuple[KVPages, ...]:
    """The pages with a chunk of each row in them. Donate `pages`.

    Args:
      tokens: int32 `[R, T]`, the last T before each row's `rows.lengths`; anything at padding.
    """
    return forward_paged(params, tokens, pages, rows, config=config, operators=operators)[1]


def score(
    params: Params,
    pages: tuple[KVPages, ...],
    tokens: jax.Array,
    rows: RowPages,
    targets: jax.Array,
    *,
    config: ModelConfig,
    vocab_size: int,
    num_top: int,
    operators: Operators,
) -> tuple[Any, tuple[KVPages, ...]]:
    """`prefill`, and how likely `targets` int32 `[R, T]` are, each after the token at its place."""
    from infer.sampling import prompt_logprobs

    hidden, pages = forward_paged(params, tokens, pages, rows, config=config, operators=operators)
    scored = prompt_logprobs(
        params,
        hidden,
        jnp.maximum(targets, 0),
        config=config,
        vocab_size=vocab_size,
        num_top=num_top,
    )
    return scored, pages
