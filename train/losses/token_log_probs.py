"""Log-probabilities of given tokens: the one implementation, for every loss and for scoring.

A walk over the words (`head_chunks.py`) with the running maximum and sum of exponentials of flash
attention (arXiv 2205.14135).

Letters: B batch, T tokens, D model, V vocabulary, M = B * T, C words of a chunk.
"""

import functools

import jax
import jax.numpy as jnp

from train.losses.head_chunks import (
    Chunk,
    HeadSplit,
    gather_tokens,
    scan_chunks,
    scan_gradients,
    sum_over_words,
)


def token_log_probs(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    *,
    vocab_chunk: int,
    vocab_axis: str | None = None,
    gather_head: tuple[str, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """Natural logarithms of the probability of each target, and of each softmax's denominator.

    Args:
      hidden: `[B, T, D]`; its dtype is that of the products. With `vocab_axis`, this device's part
        of the T tokens, which are split along it in order.
      head: `[V, D]`, of `hidden`'s dtype or a wider one. Within a mesh, this device's part: V split
        along `vocab_axis`, D along `gather_head`.
      targets: int32 `[B, T]`, the same along `vocab_axis`. An id that is not in the vocabulary has
        probability zero, so its logarithm is -inf.
      vocab_chunk, vocab_axis, gather_head: of `HeadSplit`.

    Returns:
      Log-probabilities and log-normalisers, float32 `[B, T]`, the same along `vocab_axis`. Both
      have gradients: `hidden`'s in its dtype, summed in float32; `head`'s in the dtype of `head`.
    """
    with jax.named_scope("token_log_probs"):
        split = HeadSplit(vocab_chunk, vocab_axis, gather_head)
        return _token_log_probs(hidden, head, targets, split)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _token_log_probs(hidden, head, targets, split):
    ids = targets.reshape(-1)

    def add(state, chunk):
        running_max, total, target_logit = state
        new_max = jnp.maximum(running_max, jnp.max(chunk.logits, axis=1))
        exponentials = jnp.exp(chunk.logits - new_max[:, None])
        total = total * jnp.exp(running_max - new_max) + jnp.sum(exponentials, axis=1)
        found = jnp.max(jnp.where(_is_target(chunk, ids), chunk.logits, -jnp.inf), axis=1)
        return new_max, total, jnp.maximum(target_logit, found)

    nothing = jnp.full(ids.shape, -jnp.inf, jnp.float32)
    state = (nothing, jnp.zeros_like(nothing), nothing)
    model = (gather_tokens(hidden, split), head)
    largest, total, target_logit = scan_chunks(add, state, (model,), split)
    largest, total = sum_over_words(split, largest, total)
    if split.vocab_axis is not None:
        target_logit = jax.lax.pmax(target_logit, split.vocab_axis)
    log_normalisers = largest + jnp.log(total)
    log_probs = target_logit - log_normalisers
    return log_probs.reshape(targets.shape), log_normalisers.reshape(targets.shape)


def _forward(hidden, head, targets, split):
    outputs = _token_log_probs(hidden, head, targets, split)
    return outputs, (hidden, head, targets, outputs[1])


def _backward(split, saved, gradients):
    hidden, head, targets, log_normalisers = saved
    ids, log_normalisers = targets.reshape(-1), log_normalisers.reshape(-1)
    if split.vocab_axis is not None:
        gradients = jax.lax.psum(gradients, split.vocab_axis)
    of_log_prob, of_log_normaliser = (gradient.reshape(-1, 1) for gradient in gradients)

    def of_logits(chunk):
        # The log-probability is the target's logit less the log-normaliser, whose gradient by the
        # logits is the softmax.
        softmax = jnp.exp(chunk.logits - log_normalisers[:, None])
        gradient = (of_log_normaliser - of_log_prob) * softmax
        return gradient + jnp.where(_is_target(chunk, ids), of_log_prob, 0.0)

    return *scan_gradients(of_logits, hidden, head, split), None


_token_log_probs.defvjp(_forward, _backward)


def _is_target(chunk: Chunk, ids: jax.Array) -> jax.Array:
    """bool `[M, C]`."""
    return (chunk.ids == ids[:, None]) & chunk.is_new
