"""The most probable words of each token, by a walk over the words (`head_chunks.py`).

Letters: B batch, T tokens, D model, V vocabulary, M = B * T, C words of a chunk, K words of a
token.
"""

import jax
import jax.numpy as jnp

from train.losses.head_chunks import HeadSplit, gather_tokens, scan_chunks


def top_tokens(
    hidden: jax.Array,
    head: jax.Array,
    *,
    count: int,
    vocab_chunk: int,
    vocab_axis: str | None = None,
    gather_head: tuple[str, ...] = (),
) -> jax.Array:
    """The K = `count` words with the largest logits, the largest first; of equal ones the lower id.

    Args:
      hidden, head: as of `token_log_probs`; nothing has a gradient.
      count: at most the words of the whole vocabulary.
      vocab_chunk, vocab_axis, gather_head: of `HeadSplit`.

    Returns:
      int32 `[B, T', K]`, the same along `vocab_axis`; T' are the tokens of all its devices.
    """
    with jax.named_scope("top_tokens"):
        split = HeadSplit(vocab_chunk, vocab_axis, gather_head)
        tokens = gather_tokens(hidden, split)

        def add(state, chunk):
            values, ids = state
            of_chunk = jnp.broadcast_to(chunk.ids, chunk.logits.shape)
            return _largest(
                jnp.concatenate([values, chunk.logits], axis=1),
                jnp.concatenate([ids, of_chunk], axis=1),
                count,
            )

        shape = (len(tokens), count)
        state = (jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))
        values, ids = scan_chunks(add, state, ((tokens, head),), split)
        if vocab_axis is not None:
            values, ids = (
                jax.lax.all_gather(part, vocab_axis, axis=1, tiled=True) for part in (values, ids)
            )
            _, ids = _largest(values, ids, count)
        return ids.reshape(hidden.shape[0], -1, count)


def _largest(values: jax.Array, ids: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    values, at = jax.lax.top_k(values, count)
    return values, jnp.take_along_axis(ids, at, axis=1)
