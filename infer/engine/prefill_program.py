"""Prompts on the device: one chunk of several rows into their pages.

The last token of a prompt is not prefilled: decoding begins with it. So no chunk needs logits, and
every token that is ever chosen comes from one family of programs.

R rows, T tokens of a chunk.
"""

import jax

from infer.engine.weights import Pools, Weights
from infer.sampling import PromptLogprobs, prompt_logprobs
from llama_jax.config import ModelConfig
from llama_jax.model import Operators, RowPages, forward_paged


def prefill(
    weights: Weights,
    pools: Pools,
    tokens: jax.Array,
    rows: RowPages,
    *,
    config: ModelConfig,
    draft_config: ModelConfig | None,
    operators: Operators,
) -> Pools:
    """The pages with a chunk of each row in them. Donate `pools`.

    Args:
      tokens: int32 `[R, T]`, the last T before each row's `rows.lengths`; anything at padding.
    """
    _, model = forward_paged(
        weights.model, tokens, pools.model, rows, config=config, operators=operators
    )
    return Pools(model, _draft_pages(weights, pools, tokens, rows, draft_config, operators))


def score(
    weights: Weights,
    pools: Pools,
    tokens: jax.Array,
    rows: RowPages,
    targets: jax.Array,
    *,
    config: ModelConfig,
    draft_config: ModelConfig | None,
    vocab_size: int,
    num_top: int,
    operators: Operators,
) -> tuple[PromptLogprobs, Pools]:
    """`prefill`, and how likely `targets` int32 `[R, T]` are, each after the token at its place;
    -1 for none."""
    hidden, model = forward_paged(
        weights.model, tokens, pools.model, rows, config=config, operators=operators
    )
    scored = prompt_logprobs(
        weights.model,
        hidden,
        targets,
        config=config,
        vocab_size=vocab_size,
        num_top=num_top,
    )
    draft = _draft_pages(weights, pools, tokens, rows, draft_config, operators)
    return scored, Pools(model, draft)


def _draft_pages(weights, pools, tokens, rows, draft_config, operators):
    """The draft model's pages with the chunk in them; None without a draft model."""
    if draft_config is None:
        return None
    _, pages = forward_paged(
        weights.draft, tokens, pools.draft, rows, config=draft_config, operators=operators
    )
    return pages
