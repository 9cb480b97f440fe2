"""Adding a row's own numbers to the logits of a few ids (OpenAI's `logit_bias`).

B rows, V vocabulary, N entries of the bias table.
"""

import jax
import jax.numpy as jnp

from infer.sampling.rows import RowSampling


def biased(logits: jax.Array, rows: RowSampling) -> jax.Array:
    """float32 `[B, V]` with `rows.bias_values` added at `rows.bias_ids`; an id at or over V is not
    among the choices, so its bias has no effect."""
    vocab_size = logits.shape[1]
    # A negative index would count from the end; one past the end is dropped.
    ids = jnp.where(rows.bias_ids < 0, vocab_size, rows.bias_ids)
    return logits.at[jnp.arange(logits.shape[0])[:, None], ids].add(rows.bias_values, mode="drop")
