"""Decoding on the device: a loop of steps for all rows, with the pages donated.

The loop leaves when its steps are done or too few rows go on. The host only says what each row is;
page tables, sampling and the ends of rows are the device's affair while it runs. (tpu-inference and
Levanter decode in one `while_loop` too.)

B rows, S steps of a call, E stop ids, V vocabulary, k alternatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from infer.sampling import (
    Choice,
    RowSampling,
    SamplingMode,
    TokenCounts,
    choose,
    count_chosen,
)
from llama_jax.config import ModelConfig
from llama_jax.kernels.paged_attention.pages import KVPages
from llama_jax.model import Operators, Params, RowPages, forward_paged, logits

NO_TOKEN = -1


class DecodeRows(NamedTuple):
    """What the host says about the rows of a call.

    Attributes:
      page_table: int32 `[B, P]`, with pages for all tokens that the call may write.
      tokens: int32 `[B]`, each row's newest token, not yet in its pages.
      lengths: int32 `[B]`, tokens of the row with that one; 0 for a row that is not in use.
      limits: int32 `[B]`, how many more tokens the row may get.
      least: int32 `[B]`, how many more it gets before a stop id may be chosen.
      stop_ids: int32 `[B, E]`, -1 where a row has fewer.
      forced: int32 `[B, S]`, tokens that are known already, -1 where one is to be chosen: a row
        that lost its pages computes what it had by the same program as the first time.
      sampling: the rows' parameters.
      counts: for a mode with penalties, else None.
      mask: uint32 `[B, W]` for a mode with masks, else None.
    """

    page_table: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    limits: jax.Array
    least: jax.Array
    stop_ids: jax.Array
    forced: jax.Array
    sampling: RowSampling
    counts: TokenCounts | None
    mask: jax.Array | None


class Decoded(NamedTuple):
    """What a call computed; `NO_TOKEN` after the end of a row.

    Attributes:
      tokens: int32 `[B, S]`; the id that stopped a row is in it, and `NOT_FINITE` or
        `NOTHING_ALLOWED` of `infer/sampling` where a row could not go on.
      logprobs, top_ids, top_logprobs: `[B, S]`, `[B, S, k]`, `[B, S, k]` as in `Choice`; of width 0
        for a mode without.
    """

    tokens: jax.Array
    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array


class _Carry(NamedTuple):
    step: jax.Array
    pages: tuple[KVPages, ...]
    tokens: jax.Array
    lengths: jax.Array  # 0 for rows that have ended
    limits: jax.Array
    least: jax.Array
    counts: TokenCounts | None
    decoded: Decoded


def decode(
    params: Params,
    pages: tuple[KVPages, ...],
    rows: DecodeRows,
    num_steps: jax.Array,
    least_rows: jax.Array,
    *,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
) -> tuple[Decoded, tuple[KVPages, ...]]:
    """Up to `num_steps` tokens of every row, while at least `least_rows` (and one) go on.

    Only ids under `vocab_size` are chosen. Donate `pages`.
    """

    def goes_on(carry: _Carry) -> jax.Array:
        num_active = jnp.sum(carry.lengths > 0)
        return (carry.step < num_steps) & (num_active >= jnp.maximum(least_rows, 1))

    def one_step(carry: _Carry) -> _Carry:
        hidden, pages = forward_paged(
            params,
            carry.tokens[:, None],
            carry.pages,
            RowPages(rows.page_table, carry.lengths, first_new=jnp.zeros_like(carry.lengths)),
            config=config,
            operators=operators,
        )
        with jax.named_scope("sample"):
            choice = choose(
                logits(params, hidden[:, 0], config=config)[:, :vocab_size],
                rows.sampling,
                carry.lengths,
                mode=mode,
                counts=carry.counts,
                mask=rows.mask,
                forbidden_ids=rows.stop_ids,
                forbid=carry.least > 0,
            )
        return _after(carry, pages, choice, rows)

    steps = rows.forced.shape[1]
    carry = _Carry(
        step=jnp.zeros((), jnp.int32),
        pages=pages,
        tokens=rows.tokens,
        lengths=rows.lengths,
        limits=rows.limits,
        least=rows.least,
        counts=rows.counts,
        decoded=_empty(rows.tokens.shape[0], steps, mode),
    )
    carry = lax.while_loop(goes_on, one_step, carry)
    return carry.decoded, carry.pages


def _after(carry: _Carry, pages: tuple[KVPages, ...], choice: Choice, rows: DecodeRows) -> _Carry:
    """The carry with the chosen tokens in it, or the forced ones."""
    is_active = carry.lengths > 0
    forced = lax.dynamic_index_in_dim(rows.forced, carry.step, axis=1, keepdims=False)
    tokens = jnp.where(forced >= 0, forced, choice.tokens)
    tokens = jnp.where(is_active, tokens, NO_TOKEN)
    limits = carry.limits - 1
    ends = (tokens < 0) | jnp.any(tokens[:, None] == rows.stop_ids, axis=1) | (limits == 0)
    counts = carry.counts and count_chosen(carry.counts, tokens)
    new = Decoded(tokens, *choice[1:])
    step = carry.step
    decoded = jax.tree.map(
        # A mode without log-probabilities has no room for them.
        lambda steps, new: steps.at[:, step].set(new) if steps.size else steps,
        carry.decoded,
        new,
    )
    return _Carry(
        step=step + 1,
        pages=pages,
        tokens=jnp.maximum(tokens, 0),
        lengths=jnp.where(is_active & ~ends, carry.lengths + 1, 0),
        limits=limits,
        least=carry.least - 1,
        counts=counts,
        decoded=decoded,
    )


def _empty(num_rows: int, num_steps: int, mode: SamplingMode) -> Decoded:
    k = mode.num_logprobs or 0
    steps = 0 if mode.num_logprobs is None else num_steps
    return Decoded(
        tokens=jnp.full((num_rows, num_steps), NO_TOKEN, jnp.int32),
        logprobs=jnp.zeros((num_rows, steps), jnp.float32),
        top_ids=jnp.zeros((num_rows, steps, k), jnp.int32),
        top_logprobs=jnp.zeros((num_rows, steps, k), jnp.float32),
    )
