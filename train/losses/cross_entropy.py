"""Next-token cross-entropy over packed rows, as a sum and its parts.

A loss here is a sum over valid tokens; whoever takes the gradient divides once by the count of the
whole step, so that neither micro-batches nor devices with few valid tokens weigh more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llama_jax.model import Params, output_head
from train.network import Network

Batch = dict[str, jax.Array]


class LossSums(NamedTuple):
    """Sums over the valid tokens, float32 scalars.

    Attributes:
      total: what is minimised: `negative_log_prob + z_loss_weight * squared_normaliser`.
      negative_log_prob: in nats.
      squared_normaliser: of the log-sum-exp of the logits.
    """

    total: jax.Array
    negative_log_prob: jax.Array
    squared_normaliser: jax.Array


def cross_entropy(params: Params, batch: Batch, *, network: Network, z_loss: float) -> LossSums:
    """Sums of one micro-batch.

    Args:
      batch: `tokens`, `targets`, `segment_ids` int32 and `loss_mask` bool, each `[B, T]`.
      z_loss: weight of the squared log-normaliser, which keeps the logits from drifting (PaLM,
        arXiv 2204.02311, section 5); 0 leaves it out.
    """
    hidden = network.hidden(params, batch["tokens"], batch["segment_ids"])
    head = output_head(params, config=network.config)
    log_probs, normalisers = network.token_log_probs(hidden, head, batch["targets"])
    negative = -jnp.sum(jnp.where(batch["loss_mask"], log_probs, 0.0))
    squared = jnp.sum(jnp.where(batch["loss_mask"], jnp.square(normalisers), 0.0))
    total = negative + z_loss * squared if z_loss else negative
    return LossSums(total, negative, squared)
