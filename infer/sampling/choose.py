"""Choosing the next token of every row: adjust the logits, truncate, draw.

The order of operations:

1. bias, then repetition, then frequency and presence penalties: on the logits;
2. masks: what the row may not choose becomes `-inf`;
3. greedy rows (temperature 0) take the greatest, and are done;
4. temperature, top-k, top-p, min-p (see `truncation.py`);
5. a draw by Gumbel's trick.

B rows, V vocabulary, W = ceil(V / 32) words of a mask, E ids.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from infer.sampling.bias import biased
from infer.sampling.logprobs import likeliest, log_normalizer
from infer.sampling.masks import masked, without
from infer.sampling.noise import gumbel_noise
from infer.sampling.penalties import TokenCounts, penalised
from infer.sampling.rows import RowSampling, SamplingMode
from infer.sampling.truncation import truncated_logits
from llama_jax.errors import InputError

# In place of a token, where the model's largest logit is infinite or NaN.
NOT_FINITE = -2
# In place of a token, where masks leave the row nothing to choose.
NOTHING_ALLOWED = -3


class Choice(NamedTuple):
    """What `choose` chose.

    Attributes:
      tokens: int32 `[B]`; `NOT_FINITE` or `NOTHING_ALLOWED` where there is none.
      logprobs: float32 `[B]`, log-probability of the token in the model's own distribution (natural
        logarithm; temperature 1, nothing adjusted); NaN where there is no token. Shape `[0]` if the
        mode computes none.
      top_ids: int32 `[B, k]`, the k likeliest ids of that distribution, likeliest first.
      top_logprobs: float32 `[B, k]`.
    """

    tokens: jax.Array
    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array


@partial(jax.jit, static_argnames="mode")
def choose(
    logits: jax.Array,
    rows: RowSampling,
    positions: jax.Array,
    *,
    mode: SamplingMode,
    counts: TokenCounts | None = None,
    mask: jax.Array | None = None,
    forbidden_ids: jax.Array | None = None,
    forbid: jax.Array | None = None,
) -> Choice:
    """Next token of every row.

    A row whose every id is forbidden, or whose logits are not finite, gets a negative sentinel
    instead of a token; other rows are not touched by it.

    Args:
      logits: float32 `[B, V]`.
      rows: each row's parameters, see `stack_sampling`.
      positions: int32 `[B]`, the position in its own sequence that the new token will have.
      mode: which parts to compute, see `stack_sampling`.
      counts: which ids came before; needed if `mode.penalties`, else not looked at.
      mask: uint32 `[B, W]`, see `masks.py`; needed if `mode.mask`, else not looked at. A row
        without a mask has all ones.
      forbidden_ids: int32 `[B, E]`, -1 for none: ids that may not be chosen where `forbid`, such as
        the stop ids of a row that has not reached its least length.
      forbid: bool `[B]`.
    """
    scores = _adjusted(logits, rows, mode, counts, mask)
    if forbidden_ids is not None:
        scores = without(scores, forbidden_ids, forbid)
    tokens = _drawn(scores, rows, positions, mode)
    is_finite = jnp.isfinite(jnp.max(logits, axis=-1))  # the maximum of a NaN is NaN
    is_possible = jnp.max(scores, axis=-1) > -jnp.inf
    tokens = jnp.where(is_possible, tokens, NOTHING_ALLOWED)
    tokens = jnp.where(is_finite, tokens, NOT_FINITE)
    return Choice(tokens, *_logprobs(logits, tokens, mode.num_logprobs))


def sample(
    logits: jax.Array, rows: RowSampling, positions: jax.Array, *, mode: SamplingMode
) -> jax.Array:
    """Next token of every row, int32 `[B]`: `choose` for rows without penalties and masks. A row
    whose maximum is not finite gives a meaningless id.

    Raises:
      InputError: for penalties, which need what came before, and for allowed ids, which are masks.
    """
    if mode.penalties or mode.mask:
        raise InputError("penalties and allowed_ids need the engine: use llama-jax batch or serve")
    return _sampled(logits, rows, positions, mode=mode)


@partial(jax.jit, static_argnames="mode")
def _sampled(
    logits: jax.Array, rows: RowSampling, positions: jax.Array, *, mode: SamplingMode
) -> jax.Array:
    return _drawn(_adjusted(logits, rows, mode, None, None), rows, positions, mode)


def _adjusted(
    logits: jax.Array,
    rows: RowSampling,
    mode: SamplingMode,
    counts: TokenCounts | None,
    mask: jax.Array | None,
) -> jax.Array:
    """Logits after bias, penalties and mask."""
    if mode.bias:
        logits = biased(logits, rows)
    if mode.penalties:
        assert counts is not None, "penalties need counts"
        logits = penalised(logits, rows, counts)
    if mode.mask:
        assert mask is not None, "mode.mask needs a mask"
        logits = masked(logits, mask)
    return logits


def _drawn(
    scores: jax.Array, rows: RowSampling, positions: jax.Array, mode: SamplingMode
) -> jax.Array:
    greedy = _argmax(scores)
    if not mode.random:
        return greedy
    kept = truncated_logits(scores, rows, mode=mode)
    noise = gumbel_noise(rows.seed, positions, size=scores.shape[-1])
    # Gumbel's trick: the argmax of logits plus Gumbel noise is a draw from their softmax.
    drawn = _argmax(kept + noise)
    return jnp.where(rows.temperature > 0, drawn, greedy)


def _argmax(scores: jax.Array) -> jax.Array:
    """Index of the first maximum of each row, int32 `[B]`: two plain reductions, which XLA's CPU
    backend vectorises; `jnp.argmax` takes five times as long there."""
    is_maximum = scores == jnp.max(scores, axis=-1, keepdims=True)
    index = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(is_maximum, index, scores.shape[-1]), axis=-1)


def _logprobs(
    logits: jax.Array, tokens: jax.Array, num_logprobs: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    if num_logprobs is None:
        empty = (logits.shape[0], 0)
        return (
            jnp.zeros(0, jnp.float32),
            jnp.zeros(empty, jnp.int32),
            jnp.zeros(empty, jnp.float32),
        )
    normalizer = log_normalizer(logits)
    chosen = jnp.take_along_axis(logits, jnp.maximum(tokens, 0)[:, None], axis=-1)[:, 0]
    logprobs = jnp.where(tokens >= 0, chosen - normalizer, jnp.nan)
    values, ids = likeliest(logits, num_logprobs)
    return logprobs, ids, values - normalizer[:, None]
