"""Pairs of answers in packed rows: sums over the tokens of each answer.

Pair k of a row is two segments, each a whole dialog: 2k + 1 is the prompt with the chosen answer,
2k + 2 the prompt with the rejected one. `loss_mask` is true at the targets of an answer that count.

Letters: B rows, T tokens, P pairs of a row (at most).
"""

import jax
import jax.numpy as jnp

from llama_jax.model import Params, output_head
from train.losses.loss import Batch
from train.network import Network


def most_pairs(batch: Batch) -> int:
    """P: what the reference's log-probabilities say, or as many as a row has room for, as an answer
    has two tokens at least."""
    if "reference_log_probs" in batch:
        return batch["reference_log_probs"].shape[-2]
    return max(batch["tokens"].shape[-1] // 4, 1)


def count_pairs(segment_ids: jax.Array) -> jax.Array:
    """int32 `[...]`, how many pairs each of the rows `[..., T]` has."""
    return jnp.max(segment_ids, axis=-1) // 2


def sum_answers(values: jax.Array, segment_ids: jax.Array, num_pairs: int) -> jax.Array:
    """float32 `[B, P, 2]`: the sums of `values` `[B, T]` over the chosen and the rejected segment
    of each pair."""
    ids = jnp.arange(1, 2 * num_pairs + 1, dtype=jnp.int32)
    is_in = segment_ids[:, None, :] == ids[:, None]  # [B, 2P, T], which the sum consumes
    sums = jnp.sum(jnp.where(is_in, values[:, None, :].astype(jnp.float32), 0.0), axis=-1)
    return sums.reshape(-1, num_pairs, 2)


def target_log_probs(params: Params, batch: Batch, *, network: Network) -> jax.Array:
    """float32 `[B, T]`: the log-probability of each target."""
    hidden = network.hidden(params, batch["tokens"], batch["segment_ids"])
    head = output_head(params, config=network.config)
    return network.token_log_probs(hidden, head, batch["targets"])[0]


def answer_log_probs(
    params: Params, batch: Batch, num_pairs: int, *, network: Network
) -> jax.Array:
    """float32 `[B, P, 2]`: the log-probability of each answer, over the targets that count."""
    log_probs = target_log_probs(params, batch, network=network)
    counted = jnp.where(batch["loss_mask"], log_probs, 0.0)
    return sum_answers(counted, batch["segment_ids"], num_pairs)
