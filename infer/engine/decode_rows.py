"""What the host says about the rows of a decode call, and what it is told.

B rows, S steps of a call, n guesses of a step, O = S (1 + n) tokens that a row may get, E stop ids,
H longest row, W words of a mask, k alternatives.
"""

from typing import NamedTuple

import jax

from infer.sampling import RowSampling, TokenCounts

NO_TOKEN = -1


class DecodeRows(NamedTuple):
    """Attributes:
    page_table: int32 `[B, P]`, with pages for all tokens that the call may write, guesses too; -1
      where a row has none.
    tokens: int32 `[B]`, each row's newest token, not yet in its pages.
    lengths: int32 `[B]`, tokens of the row with that one; 0 for a row that is not in use.
    limits: int32 `[B]`, how many more tokens the row may get.
    least: int32 `[B]`, how many more it gets before a stop id may be chosen.
    stop_ids: int32 `[B, E]`, -1 where a row has fewer.
    forced: int32 `[B, O]`, tokens that are known already, -1 where one is to be chosen: a row that
      lost its pages computes what it had by the same program as the first time.
    sampling: the rows' parameters.
    counts: for a mode with penalties, else None.
    mask: uint32 `[B, W]` for a mode with masks, else None.
    history: int32 `[B, H]`, prompt and answer so far, where guesses come from there, else None.
    """

    page_table: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    limits: jax.Array
    least: jax.Array
    stop_ids: jax.Array
    forced: jax.Array
    sampling: RowSampling
    counts: TokenCounts | None = None
    mask: jax.Array | None = None
    history: jax.Array | None = None


class Decoded(NamedTuple):
    """What a call computed, from the front; `NO_TOKEN` behind.

    Attributes:
      tokens: int32 `[B, O]`; the id that stopped a row is in it, and `NOT_FINITE` or
        `NOTHING_ALLOWED` of `infer/sampling` where a row could not go on.
      logprobs, top_ids, top_logprobs: `[B, O]`, `[B, O, k]`, `[B, O, k]` as in `Choice`; of width 0
        for a mode without.
      num_steps: int32 scalar, steps that it took.
    """

    tokens: jax.Array
    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array
    num_steps: jax.Array
