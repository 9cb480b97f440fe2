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
    ids = words.reshape(-1, K)

    def add(state, chunk):
        running_max, total, found = state
        logits = chunk.logits / temperature
        at, is_here = _places(chunk, ids)
        values = jnp.take_along_axis(logits, at, axis=1, mode="clip")
        found = jnp.maximum(found, jnp.where(is_here, values, -jnp.inf))
        rest = _without(logits, at)
        new_max = jnp.maximum(running_max, jnp.max(rest, axis=1))
        # A chunk may have no other words, and -inf less -inf is no number.
        base = jnp.maximum(new_max, EMPTY)
        total = total * jnp.exp(running_max - base)
        total += jnp.sum(jnp.exp(rest - base[:, None]), axis=1)
        return base, total, found

    nothing = jnp.full((B * T, K), -jnp.inf, jnp.float32)
    state = (jnp.full(B * T, EMPTY, jnp.float32), jnp.zeros(B * T, jnp.float32), nothing)
    model = (gather_tokens(hidden, split), head)
    largest, total, found = scan_chunks(add, state, (model,), split)
    largest, total = sum_over_words(split, largest, total)
    if split.vocab_axis is not None:
        found = jax.lax.pmax(found, split.vocab_axis)
    rest = jnp.where(total > 0, largest + jnp.log(total), EMPTY)
    return jnp.concatenate([found, rest[:, None]], axis=1).reshape(B, T, K + 1)


def _forward(hidden, head, words, temperature, split):
    logits = _bucket_logits(hidden, head, words, temperature, split)
    return logits, (hidden, head, words, logits[..., -1])


def _backward(temperature, split, saved, gradient):
    hidden, head, words, rest = saved
    ids, rest = words.reshape(-1, words.shape[-1]), rest.reshape(-1, 1)
    if split.vocab_axis is not None:
        gradient = jax.lax.psum(gradient, split.vocab_axis)
    gradient = gradient.reshape(-1, words.shape[-1] + 1) / temperature
    of_words, of_rest = gradient[:, :-1], gradient[:, -1:]

    def of_logits(chunk):
        at, is_here = _places(chunk, ids)
        # The gradient of the rest's logit by those of its words is their softmax.
        softmax = jnp.exp(_without(chunk.logits / temperature, at) - rest)
        tokens = jnp.arange(len(ids))[:, None]
        return (
            (of_rest * softmax).at[tokens, at].add(jnp.where(is_here, of_words, 0.0), mode="drop")
        )

    return *scan_gradients(of_logits, hidden, head, split), None


_bucket_logits.defvjp(_forward, _backward)


def _places(chunk: Chunk, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where in the chunk each token's words are, int32 `[M, K]`, C for those of other chunks; and
    whether they are there, and new."""
    size = len(chunk.ids)
    at = ids - chunk.ids[0]
    at = jnp.where((at >= 0) & (at < size), at, size)
    return at, jnp.take(chunk.is_new, at, mode="fill", fill_value=False)


def _without(logits: jax.Array, at: jax.Array) -> jax.Array:
    """`logits` `[M, C]`, -inf at the places `at`."""
    return logits.at[jnp.arange(len(at))[:, None], at].set(-jnp.inf, mode="drop")
