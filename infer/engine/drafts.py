"""Guesses of the next tokens, by looking back in the row or by a smaller model.

A guess is kept exactly if it is the token that the model itself chooses at its place, by the same
random numbers: so guesses change how fast an answer comes, never the answer. Where tokens are not
the likeliest but drawn, the draft model draws with the model's random numbers too: distributions
that are close then mostly agree (coupling by common Gumbel noise, arXiv 2408.07978).

B rows, H tokens of a row's history, n guesses, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from infer.engine.decode_rows import DecodeRows
from infer.sampling import SamplingMode, choose
from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Operators, Params, RowPages, forward_paged, logits

# The longest ends of a row that are looked for in it: of several that occur, the longest counts.
_LOOKED_FOR = (1, 2, 3)


def look_back(history: jax.Array, lengths: jax.Array, num_drafts: int) -> jax.Array:
    """What followed the row's last tokens when they last occurred in it (prompt lookup decoding).

    Args:
      history: int32 `[B, H]`, the tokens of each row; anything from `lengths` `[B]` on.

    Returns:
      int32 `[B, n]`; token 0 where there is nothing to go by.
    """
    H = history.shape[1]
    place = jnp.arange(H, dtype=jnp.int32)
    after = jnp.zeros_like(lengths)  # where the guesses begin; 0: nowhere
    occurs = jnp.ones(history.shape, bool)
    for size in _LOOKED_FOR:
        # `occurs` at p: the `size` tokens that end before p are the row's last ones.
        last = jnp.take_along_axis(history, jnp.maximum(lengths - size, 0)[:, None], axis=1)
        earlier = jnp.roll(history, size, axis=1)
        occurs = occurs & (earlier == last) & (place >= size) & (size < lengths[:, None])
        found = jnp.max(jnp.where(occurs & (place < lengths[:, None]), place, 0), axis=1)
        after = jnp.where(found > 0, found, after)
    places = after[:, None] + jnp.arange(num_drafts, dtype=jnp.int32)
    drafts = jnp.take_along_axis(history, jnp.minimum(places, H - 1), axis=1)
    return jnp.where((after[:, None] > 0) & (places < lengths[:, None]), drafts, 0)


def ask_draft_model(
    params: Params,
    pages: tuple[KVPages, ...],
    tokens: jax.Array,
    lengths: jax.Array,
    known: jax.Array,
    rows: DecodeRows,
    *,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
) -> tuple[jax.Array, tuple[KVPages, ...]]:
    """What a smaller model chooses, one token after another.

    It also reads its own last guess, whose keys and values it needs if all are kept.

    Args:
      params, pages, config: of the draft model.
      tokens, lengths: int32 `[B]`, as in `DecodeRows`; lengths 0 for rows that are over.
      known: int32 `[B, n]`, tokens that are known already, -1 elsewhere.

    Returns:
      int32 `[B, n]`, the known tokens among them, and the pages.
    """
    mode = dataclasses.replace(mode, num_logprobs=None)
    drafts = []
    for step in range(known.shape[1] + 1):
        reached = jnp.where(lengths > 0, lengths + step, 0)
        hidden, pages = forward_paged(
            params,
            tokens[:, None],
            pages,
            RowPages(rows.page_table, reached, first_new=jnp.zeros_like(reached)),
            config=config,
            operators=operators,
        )
        if step == known.shape[1]:
            break
        scores = logits(params, hidden[:, 0], config=config)[:, :vocab_size]
        chosen = choose(scores, rows.sampling, reached, mode=mode, mask=rows.mask).tokens
        tokens = jnp.where(known[:, step] >= 0, known[:, step], jnp.maximum(chosen, 0))
        drafts.append(tokens)
    return jnp.stack(drafts, axis=1), pages
