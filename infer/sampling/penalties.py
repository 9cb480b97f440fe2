"""Penalties on ids that came before: repetition, presence and frequency.

Repetition (Keskar et al., arXiv 1909.05858, equation for penalised sampling, as transformers and
vLLM have it): the logit of an id in the prompt or the answer is divided by the penalty if positive
and multiplied by it if not. Presence and frequency (OpenAI's documentation): what is subtracted
depends on the answer only.

B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infer.sampling.rows import RowSampling


class TokenCounts(NamedTuple):
    """Which ids each row has had.

    Attributes:
      prompt: bool `[B, V]`, whether the id is in the prompt.
      new: int32 `[B, V]`, how often it is in the answer so far.
    """

    prompt: jax.Array
    new: jax.Array


def count_rows(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, vocab_size: int
) -> TokenCounts:
    """Counts, as numpy arrays, of rows with these prompts and these answers so far.

    Ids of a prompt at or over `vocab_size` are never chosen, so they need no penalty.
    """
    prompt = np.zeros((len(prompts), vocab_size), bool)
    new = np.zeros((len(prompts), vocab_size), np.int32)
    for row, (prompt_ids, new_ids) in enumerate(zip(prompts, answers, strict=True)):
        prompt_ids = np.asarray(prompt_ids, np.int64)
        prompt[row, prompt_ids[prompt_ids < vocab_size]] = True
        np.add.at(new[row], np.asarray(new_ids, np.int64), 1)
    return TokenCounts(prompt, new)


def count_chosen(counts: TokenCounts, tokens: jax.Array) -> TokenCounts:
    """`counts` after every row's new id; int32 `[B]`, a negative one counts nothing."""
    rows = jnp.arange(tokens.shape[0])
    # A negative index would count from the end; one past the end is dropped.
    columns = jnp.where(tokens < 0, counts.new.shape[1], tokens)
    return counts._replace(new=counts.new.at[rows, columns].add(1, mode="drop"))


def penalised(logits: jax.Array, rows: RowSampling, counts: TokenCounts) -> jax.Array:
    """float32 `[B, V]` after the three penalties."""
    had = counts.prompt | (counts.new > 0)
    factor = rows.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / factor, logits * factor)
    logits = jnp.where(had, repeated, logits)
    subtracted = rows.frequency_penalty[:, None] * counts.new + rows.presence_penalty[:, None]
    return jnp.where(counts.new > 0, logits - subtracted, logits)
