"""Decoding on the device: a loop of steps for all rows, with the pages donated.

A step reads each row's newest token and n guesses of what follows (none, where nothing drafts),
chooses a token at each of these 1 + n places, and keeps those up to the first place whose guess was
another. The loop leaves when its steps are done or too few rows go on. The host only says what each
row is; page tables, sampling and the ends of rows are the device's affair while it runs.
(tpu-inference and Levanter decode in one `while_loop` too.)

B rows, O tokens that a row may get in a call, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from infer.engine.decode_rows import NO_TOKEN, Decoded, DecodeRows
from infer.engine.drafts import ask_draft_model, look_back
from infer.engine.settings import Speculation
from infer.engine.weights import Pools, Weights
from infer.sampling import Choice, SamplingMode, TokenCounts, choose, count_chosen
from llama_jax.config import ModelConfig
from llama_jax.model import Operators, RowPages, forward_paged, logits


class _Carry(NamedTuple):
    pools: Pools
    tokens: jax.Array
    lengths: jax.Array  # 0 for rows that have ended
    num_new: jax.Array  # int32 [B], tokens that the row got in this call
    counts: TokenCounts | None
    history: jax.Array | None
    decoded: Decoded


def decode(
    weights: Weights,
    pools: Pools,
    rows: DecodeRows,
    num_steps: jax.Array,
    least_rows: jax.Array,
    *,
    config: ModelConfig,
    vocab_size: int,
    operators: Operators,
    mode: SamplingMode,
    speculation: Speculation | None,
) -> tuple[Decoded, Pools]:
    """Up to `num_steps` steps of every row, while at least `least_rows` (and one) go on.

    Only ids under `vocab_size` are chosen. Donate `pools`.
    """
    num_drafts = speculation.num_drafts if speculation else 0
    same = dict(vocab_size=vocab_size, operators=operators, mode=mode)

    def goes_on(carry: _Carry) -> jax.Array:
        num_active = jnp.sum(carry.lengths > 0)
        return (carry.decoded.num_steps < num_steps) & (num_active >= jnp.maximum(least_rows, 1))

    def one_step(carry: _Carry) -> _Carry:
        is_active = carry.lengths > 0
        known = _columns(rows.forced, carry.num_new, num_drafts + 1)
        drafts, of_draft = _drafts(weights, carry, known[:, :num_drafts], rows, speculation, **same)
        hidden, of_model = forward_paged(
            weights.model,
            jnp.concatenate([carry.tokens[:, None], drafts], axis=1),
            carry.pools.model,
            RowPages(
                rows.page_table,
                lengths=jnp.where(is_active, carry.lengths + num_drafts, 0),
                first_new=carry.lengths - 1,
            ),
            config=config,
            operators=operators,
        )
        with jax.named_scope("sample"):
            scores = logits(weights.model, hidden, config=config)[..., :vocab_size]
            choice = _choose(scores, carry, rows, mode)
        chosen = jnp.where(known >= 0, known, choice.tokens)
        return _after(
            carry, Pools(of_model, of_draft), drafts, choice._replace(tokens=chosen), rows
        )

    carry = _Carry(
        pools=pools,
        tokens=rows.tokens,
        lengths=rows.lengths,
        num_new=jnp.zeros_like(rows.lengths),
        counts=rows.counts,
        history=rows.history,
        decoded=_empty(*rows.forced.shape, mode),
    )
    carry = lax.while_loop(goes_on, one_step, carry)
    return carry.decoded, carry.pools


def _drafts(weights, carry: _Carry, known, rows, speculation, **same):
    """int32 `[B, n]` guesses, known tokens among them, and the draft model's pages."""
    if speculation is None:
        return known, carry.pools.draft
    if speculation.draft_config is None:
        guesses = look_back(carry.history, carry.lengths, speculation.num_drafts)
        return jnp.where(known >= 0, known, guesses), None
    return ask_draft_model(
        weights.draft,
        carry.pools.draft,
        carry.tokens,
        carry.lengths,
        known,
        rows,
        config=speculation.draft_config,
        **same,
    )


def _choose(scores: jax.Array, carry: _Carry, rows: DecodeRows, mode: SamplingMode) -> Choice:
    """The choice at each place, `[B, 1 + n]`, as if everything before it were kept."""
    B, num_places, _ = scores.shape
    place = jnp.arange(num_places, dtype=jnp.int32)

    def each(of_row: jax.Array) -> jax.Array:
        return jnp.repeat(of_row, num_places, axis=0)

    least = rows.least - carry.num_new
    choice = choose(
        scores.reshape(B * num_places, -1),
        jax.tree.map(each, rows.sampling),
        (carry.lengths[:, None] + place).reshape(-1),
        mode=mode,
        counts=carry.counts,
        mask=None if rows.mask is None else each(rows.mask),
        forbidden_ids=each(rows.stop_ids),
        forbid=(least[:, None] > place).reshape(-1),
    )
    if mode.num_logprobs is None:
        return choice._replace(tokens=choice.tokens.reshape(B, num_places))
    return jax.tree.map(lambda x: x.reshape(B, num_places, *x.shape[1:]), choice)


def _after(
    carry: _Carry, pools: Pools, drafts: jax.Array, choice: Choice, rows: DecodeRows
) -> _Carry:
    """The carry after a step: tokens are kept up to the first guess that was wrong, or the end."""
    num_places = choice.tokens.shape[1]
    place = jnp.arange(num_places, dtype=jnp.int32)
    tokens = choice.tokens
    is_stop = jnp.any(tokens[..., None] == rows.stop_ids[:, None], axis=-1)
    is_last = place + 1 == (rows.limits - carry.num_new)[:, None]
    ends = (tokens < 0) | is_stop | is_last
    goes_on = (tokens[:, :-1] == drafts) & ~ends[:, :-1]
    is_kept = jnp.cumprod(goes_on, axis=1, dtype=jnp.int32) > 0
    is_active = (carry.lengths > 0)[:, None]
    is_kept = jnp.concatenate([is_active, is_kept & is_active], axis=1)
    num_kept = jnp.sum(is_kept, axis=1, dtype=jnp.int32)
    has_ended = jnp.any(is_kept & ends, axis=1)
    newest = jnp.take_along_axis(tokens, jnp.maximum(num_kept - 1, 0)[:, None], axis=1)[:, 0]

    counts = carry.counts
    if counts is not None:  # with penalties nothing is guessed, see `Executables.decode_key`
        counts = count_chosen(counts, jnp.where(is_kept[:, 0], tokens[:, 0], NO_TOKEN))
    history = carry.history
    if history is not None:
        history = _written(history, carry.lengths, jnp.maximum(tokens, 0), is_kept)
    write = functools.partial(_written, first=carry.num_new, is_kept=is_kept)
    decoded = jax.tree.map(
        # A mode without log-probabilities has no room for them.
        lambda told, new: write(told, new=new) if told.size else told,
        carry.decoded._replace(num_steps=jnp.zeros(0)),
        Decoded(*choice, num_steps=jnp.zeros(0)),
    )
    return _Carry(
        pools=pools,
        tokens=jnp.maximum(newest, 0),
        lengths=jnp.where(is_active[:, 0] & ~has_ended, carry.lengths + num_kept, 0),
        num_new=carry.num_new + num_kept,
        counts=counts,
        history=history,
        decoded=decoded._replace(num_steps=carry.decoded.num_steps + 1),
    )


def _columns(x: jax.Array, first: jax.Array, count: int) -> jax.Array:
    """`[B, count]`: each row of `x` `[B, O]` from its own column on; -1 past the end."""
    columns = first[:, None] + jnp.arange(count, dtype=jnp.int32)
    rows = jnp.arange(x.shape[0])[:, None]
    return x.at[rows, columns].get(mode="fill", fill_value=NO_TOKEN)


def _written(x: jax.Array, first: jax.Array, new: jax.Array, is_kept: jax.Array) -> jax.Array:
    """`x` `[B, O, ...]` with the kept ones of `new` `[B, 1 + n, ...]`, each row from its own column
    on."""
    columns = first[:, None] + jnp.arange(new.shape[1], dtype=jnp.int32)
    columns = jnp.where(is_kept, columns, x.shape[1])
    return x.at[jnp.arange(x.shape[0])[:, None], columns].set(new, mode="drop")


def _empty(num_rows: int, num_tokens: int, mode: SamplingMode) -> Decoded:
    k = mode.num_logprobs or 0
    width = 0 if mode.num_logprobs is None else num_tokens
    return Decoded(
        tokens=jnp.full((num_rows, num_tokens), NO_TOKEN, jnp.int32),
        logprobs=jnp.zeros((num_rows, width), jnp.float32),
        top_ids=jnp.zeros((num_rows, width, k), jnp.int32),
        top_logprobs=jnp.zeros((num_rows, width, k), jnp.float32),
        num_steps=jnp.zeros((), jnp.int32),
    )
