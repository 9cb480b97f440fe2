"""The compiled half of generation: prefill, and a loop that decodes many tokens per call.

The loop is a `lax.while_loop` on the device with the cache donated: it writes one slot per layer
and step in place, and ends early when every row is done. How many steps it runs is an argument, so
one program serves every call. (tpu-inference and Levanter decode this way too.)

B rows, T prompt tokens (padded at the left), E end-of-text ids.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from infer.sampling import NOT_FINITE, RowSampling, SamplingMode, sample
from llama_jax.config import ModelConfig
from llama_jax.model import (
    KVCache,
    Operators,
    Params,
    forward_cached,
    logits,
)

NO_TOKEN = -1


class DecodeState(NamedTuple):
    """What one decode step hands to the next.

    Attributes:
      cache: keys and values so far; donated.
      tokens: int32 `[B]`, the newest token of each row, not yet in the cache.
      positions: int32 `[B]`, the position that the next token will have.
      remaining: int32 `[B]`, how many more tokens the row may have.
      done: bool `[B]`.
    """

    cache: KVCache
    tokens: jax.Array
    positions: jax.Array
    remaining: jax.Array
    done: jax.Array


@partial(jax.jit, static_argnames=("config", "operators"), donate_argnames="cache")
def prefill(
    params: Params, tokens: jax.Array, cache: KVCache, *, config: ModelConfig, operators: Operators
) -> KVCache:
    """The cache with one more chunk `[B, T]` of the prompts in it."""
    return forward_cached(params, tokens, cache, config=config, operators=operators)[1]


@partial(
    jax.jit, static_argnames=("config", "vocab_size", "operators", "mode"), donate_argnames="state"
)
def start(
    params: Params,
    state: DecodeState,
    rows: RowSampling,
    eos_ids: jax.Array,
    *,
    tokens: jax.Array,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
) -> tuple[jax.Array, DecodeState]:
    """Prefills the last chunk `[B, T]` and samples the first new token: int32 `[B, 1]`.

    Only ids under `vocab_size` are chosen. A row whose logits are not finite gets `NOT_FINITE` and
    is done; so in `decode`.
    """
    new_tokens, state = _step(
        params,
        tokens,
        state,
        rows,
        eos_ids,
        config=config,
        vocab_size=vocab_size,
        operators=operators,
        mode=mode,
    )
    return new_tokens[:, None], state


@partial(
    jax.jit,
    static_argnames=("most_steps", "config", "vocab_size", "operators", "mode"),
    donate_argnames="state",
)
def decode(
    params: Params,
    state: DecodeState,
    rows: RowSampling,
    eos_ids: jax.Array,
    *,
    num_steps: jax.Array,
    most_steps: int,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
) -> tuple[jax.Array, DecodeState]:
    """Decodes up to `num_steps` tokens: int32 `[B, most_steps]`, -1 where a row has none."""

    def unfinished(carry):
        step, _, state = carry
        return (step < num_steps) & ~jnp.all(state.done)

    def one_step(carry):
        step, output, state = carry
        new_tokens, state = _step(
            params,
            state.tokens[:, None],
            state,
            rows,
            eos_ids,
            config=config,
            vocab_size=vocab_size,
            operators=operators,
            mode=mode,
        )
        return step + 1, output.at[:, step].set(new_tokens), state

    output = jnp.full((state.tokens.shape[0], most_steps), NO_TOKEN, jnp.int32)
    _, output, state = lax.while_loop(unfinished, one_step, (0, output, state))
    return output, state


def _step(
    params: Params,
    tokens: jax.Array,
    state: DecodeState,
    rows: RowSampling,
    eos_ids: jax.Array,
    *,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
) -> tuple[jax.Array, DecodeState]:
    """Runs `tokens` `[B, T]` and samples what follows: int32 `[B]`, -1 for rows that were done."""
    hidden, cache = forward_cached(params, tokens, state.cache, config=config, operators=operators)
    with jax.named_scope("sample"):
        scores = logits(params, hidden[:, -1], config=config)[:, :vocab_size]
        is_finite = jnp.isfinite(jnp.max(scores, axis=-1))  # the maximum of a NaN is NaN
        sampled = sample(scores, rows, state.positions, mode=mode)
        sampled = jnp.where(is_finite, sampled, NOT_FINITE)
    remaining = state.remaining - ~state.done
    done = state.done | ~is_finite | jnp.isin(sampled, eos_ids) | (remaining == 0)
    new_tokens = jnp.where(state.done, NO_TOKEN, sampled)
    return new_tokens, DecodeState(cache, sampled, state.positions + 1, remaining, done)
