"""Log-probabilities of a prompt's own tokens, for scoring texts.

The logits of all tokens of a prompt would take 0.5 GB in float32 for 1,000 tokens of 128,256 ids.
They are made and used up a chunk of tokens at a time, so the memory does not grow with the prompt.
Chunks of tokens rather than of the vocabulary: the head may be divided over devices by vocabulary,
and each chunk goes the way that the logits of a decoded token go, down to the last bit wherever a
product has the same bits for any number of rows.

R rows, T tokens, D model, V vocabulary, k alternatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from infer.sampling.logprobs import likeliest, log_normalizer
from llama_jax.config import ModelConfig
from llama_jax.model import Params, logits

# 66 MB of logits for 128,256 ids.
_CHUNK_TOKENS = 128


class PromptLogprobs(NamedTuple):
    """Natural logarithms of the model's own probabilities.

    Attributes:
      logprobs: float32 `[R, T]`, of the targets; NaN where there is none.
      top_ids: int32 `[R, T, k]`, the likeliest ids in each target's place, likeliest first.
      top_logprobs: float32 `[R, T, k]`.
    """

    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array


def prompt_logprobs(
    params: Params,
    hidden: jax.Array,
    targets: jax.Array,
    *,
    config: ModelConfig,
    vocab_size: int,
    num_top: int,
) -> PromptLogprobs:
    """How likely each target is after the tokens up to its place.

    Args:
      hidden: `[R, T, D]` after the final norm, see `forward`.
      targets: int32 `[R, T]`, the token that follows each one; negative where there is none, as
        after a prompt's last token and in padding.
      vocab_size: the distribution is over the ids under it, as when tokens are chosen.
      num_top: k, 0 for none.
    """
    R, T = targets.shape
    num_tokens = R * T
    chunk = min(_CHUNK_TOKENS, num_tokens)
    num_chunks = -(-num_tokens // chunk)
    padding = num_chunks * chunk - num_tokens

    def of_chunk(arguments):
        hidden, targets = arguments
        scores = logits(params, hidden, config=config)[:, :vocab_size]
        normalizer = log_normalizer(scores)
        chosen = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[:, None], axis=-1)[:, 0]
        logprobs = jnp.where(targets >= 0, chosen - normalizer, jnp.nan)
        values, ids = likeliest(scores, num_top)
        return PromptLogprobs(logprobs, ids, values - normalizer[:, None])

    hidden = jnp.pad(hidden.reshape(num_tokens, -1), ((0, padding), (0, 0)))
    targets = jnp.pad(targets.reshape(num_tokens), (0, padding), constant_values=-1)
    result = lax.map(
        of_chunk, (hidden.reshape(num_chunks, chunk, -1), targets.reshape(num_chunks, chunk))
    )
    return jax.tree.map(
        lambda x: x.reshape(num_chunks * chunk, *x.shape[2:])[:num_tokens].reshape(
            R, T, *x.shape[2:]
        ),
        result,
    )
