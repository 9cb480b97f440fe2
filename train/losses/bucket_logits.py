"""A vocabulary in K + 1 buckets: K given words of each token, and all the other words as one.

The probability of a bucket is the sum of those of its words, so the logit of the last one is the
logarithm of the sum of the exponentials of its words' logits, and `jax.nn.log_softmax` of the
K + 1 logits gives the logarithms of the buckets' probabilities, without the cancellation of one
minus the sum of the others. A walk over the words (`head_chunks.py`).

Letters: B batch, T tokens, D model, V vocabulary, M = B * T, C words of a chunk, K words of a
token.
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

# The logit of a bucket without a word: its exponential is 0, and differences of it are numbers.
EMPTY = -1e30


def bucket_logits(
    hidden: jax.Array,
    head: jax.Array,
    words: jax.Array,
    *,
    temperature: float,
    vocab_chunk: int,
    vocab_axis: str | None = None,
    gather_head: tuple[str, ...] = (),
) -> jax.Array:
    """The logits of `words`, and last that of all other words together, divided by `temperature`
    before their exponentials are summed.

    Args:
      hidden, head: as of `token_log_probs`.
      words: int32 `[B, T, K]`, of a token each another one, the same along `vocab_axis`.
      vocab_chunk, vocab_axis, gather_head: of `HeadSplit`.

    Returns:
      float32 `[B, T, K + 1]`, the same along `vocab_axis`, with gradients as of `token_log_probs`;
      the last is `EMPTY` if `words` are the whole vocabulary.
    """
    with jax.named_scope("bucket_logits"):
        split = HeadSplit(vocab_chunk, vocab_axis, gather_head)
        return _bucket_logits(hidden, head, words, temperature, split)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _bucket_logits(hidden, head, words, temperature, split):
    B, T, K = words.shape
    ids = words.reshape(-1, K).T

    def add(state, chunk):
        running_max, total, found = state
        logits = chunk.logits / temperature
        is_word = _is_word(chunk, ids)
        found = jnp.maximum(found, jnp.max(jnp.where(is_word, logits, -jnp.inf), axis=2))
        rest = jnp.where(jnp.any(is_word, axis=0), -jnp.inf, logits)
        new_max = jnp.maximum(running_max, jnp.max(rest, axis=1))
        # A chunk may have no other words, and -inf less -inf is no number.
        base = jnp.maximum(new_max, EMPTY)
        total = total * jnp.exp(running_max - base)
        total += jnp.sum(jnp.exp(rest - base[:, None]), axis=1)
        return base, total, found

    nothing = jnp.full((K, B * T), -jnp.inf, jnp.float32)
    state = (jnp.full(B * T, EMPTY, jnp.float32), jnp.zeros(B * T, jnp.float32), nothing)
    model = (gather_tokens(hidden, split), head)
    largest, total, found = scan_chunks(add, state, (model,), split)
    largest, total = sum_over_words(split, largest, total)
    if split.vocab_axis is not None:
        found = jax.lax.pmax(found, split.vocab_axis)
    rest = jnp.where(total > 0, largest + jnp.log(total), EMPTY)
    return jnp.concatenate([found, rest[None]]).T.reshape(B, T, K + 1)


def _forward(hidden, head, words, temperature, split):
    logits = _bucket_logits(hidden, head, words, temperature, split)
    return logits, (hidden, head, words, logits[..., -1])


def _backward(temperature, split, saved, gradient):
    hidden, head, words, rest = saved
    ids, rest = words.reshape(-1, words.shape[-1]).T, rest.reshape(-1, 1)
    if split.vocab_axis is not None:
        gradient = jax.lax.psum(gradient, split.vocab_axis)
    gradient = gradient.reshape(-1, words.shape[-1] + 1).T[:, :, None] / temperature
    of_words, of_rest = gradient[:-1], gradient[-1]

    def of_logits(chunk):
        is_word = _is_word(chunk, ids)
        # The gradient of the rest's logit by those of its words is their softmax.
        logits = jnp.where(jnp.any(is_word, axis=0), -jnp.inf, chunk.logits / temperature)
        of_found = jnp.sum(jnp.where(is_word, of_words, 0.0), axis=0)
        return of_rest * jnp.exp(logits - rest) + of_found

    return *scan_gradients(of_logits, hidden, head, split), None


_bucket_logits.defvjp(_forward, _backward)


def _is_word(chunk: Chunk, ids: jax.Array) -> jax.Array:
    """bool `[K, M, C]`, whether a word of the chunk is a token's k-th, and new.

    It is never written down, as a sum or a maximum consumes it. A gather and a scatter would look
    at fewer numbers, and a TPU does those one after another.
    """
    return (ids[:, :, None] == chunk.ids) & chunk.is_new
