"""How far two models' next-token distributions are apart, over the whole vocabulary.

    forward = sum over words of p_teacher * (log p_teacher - log p_student)
    reverse = sum over words of p_student * (log p_student - log p_teacher)

Both are expectations of a difference of logits, plus a difference of log-normalisers, so one walk
over the words of both heads (`head_chunks.py`) gives all of it; neither distribution ever exists.

Letters: B batch, T tokens, D and E the two models' widths, V vocabulary, M = B * T.
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


def divergences(
    hidden: jax.Array,
    head: jax.Array,
    teacher_hidden: jax.Array,
    teacher_head: jax.Array,
    *,
    temperature: float,
    vocab_chunk: int,
    vocab_axis: str | None = None,
    gather_head: tuple[str, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """Forward and reverse Kullback-Leibler divergence of each token, in nats.

    Args:
      hidden, head: of the student, `[B, T, D]` and `[V, D]`, as of `token_log_probs`.
      teacher_hidden, teacher_head: `[B, T, E]` and `[V, E]`, split alike; they get no gradient.
      temperature: the logits of both are divided by it.
      vocab_chunk, vocab_axis, gather_head: of `HeadSplit`.

    Returns:
      Forward and reverse, float32 `[B, T]`, the same along `vocab_axis`, with gradients as of
      `token_log_probs`. Rounding may leave a divergence of 0 below it by the rounding of a logit.
    """
    with jax.named_scope("divergences"):
        split = HeadSplit(vocab_chunk, vocab_axis, gather_head)
        return _divergences(hidden, head, teacher_hidden, teacher_head, temperature, split)[:2]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _divergences(hidden, head, teacher_hidden, teacher_head, temperature, split):
    """The two divergences, and the log-normalisers of student and teacher."""
    tokens, teacher_tokens = (gather_tokens(part, split) for part in (hidden, teacher_hidden))

    def add(state, chunk, teacher_chunk):
        gap = _logit_gap(chunk, teacher_chunk) / temperature
        added = []
        # Of the student the expectation of the gap, and of the teacher that of its negative.
        for (running_max, total, expected), one, its_gap in zip(
            state, (chunk, teacher_chunk), (gap, -gap), strict=True
        ):
            logits = one.logits / temperature
            new_max = jnp.maximum(running_max, jnp.max(logits, axis=1))
            exponentials = jnp.exp(logits - new_max[:, None])
            scale = jnp.exp(running_max - new_max)
            total = total * scale + jnp.sum(exponentials, axis=1)
            expected = expected * scale + jnp.sum(exponentials * its_gap, axis=1)
            added.append((new_max, total, expected))
        return tuple(added)

    nothing = jnp.full(len(tokens), -jnp.inf, jnp.float32)
    zeros = jnp.zeros_like(nothing)
    models = ((tokens, head), (teacher_tokens, teacher_head))
    state = scan_chunks(add, ((nothing, zeros, zeros),) * 2, models, split)
    log_normalisers, expectations = [], []
    for one in state:
        largest, total, expected = sum_over_words(split, *one)
        log_normalisers.append(largest + jnp.log(total))
        expectations.append(expected / total)
    of_student, of_teacher = log_normalisers
    forward = expectations[1] + of_student - of_teacher
    reverse = expectations[0] + of_teacher - of_student
    shape = (hidden.shape[0], -1)
    return tuple(part.reshape(shape) for part in (forward, reverse, of_student, of_teacher))


def _forward(hidden, head, teacher_hidden, teacher_head, temperature, split):
    outputs = _divergences(hidden, head, teacher_hidden, teacher_head, temperature, split)
    return outputs, (hidden, head, teacher_hidden, teacher_head, *outputs[1:])


def _backward(temperature, split, saved, gradients):
    hidden, head, teacher_hidden, teacher_head, *of_tokens = saved
    reverse, of_student, of_teacher = (part.reshape(-1, 1) for part in of_tokens)
    gradients = gradients[:2]  # the log-normalisers are kept for here, and seen nowhere else
    if split.vocab_axis is not None:
        gradients = jax.lax.psum(gradients, split.vocab_axis)
    of_forward, of_reverse = (gradient.reshape(-1, 1) / temperature for gradient in gradients)

    def of_logits(chunk, teacher_chunk):
        p_student = jnp.exp(chunk.logits / temperature - of_student)
        p_teacher = jnp.exp(teacher_chunk.logits / temperature - of_teacher)
        log_ratio = _logit_gap(chunk, teacher_chunk) / temperature - of_student + of_teacher
        return of_forward * (p_student - p_teacher) + of_reverse * p_student * (log_ratio - reverse)

    teacher = (gather_tokens(teacher_hidden, split), teacher_head)
    return *scan_gradients(of_logits, hidden, head, split, (teacher,)), None, None


_divergences.defvjp(_forward, _backward)


def _logit_gap(chunk: Chunk, teacher_chunk: Chunk) -> jax.Array:
    """float32 `[M, C]`, the student's logit less the teacher's; 0 for words that are not new."""
    return jnp.where(chunk.is_new, chunk.logits - teacher_chunk.logits, 0.0)
