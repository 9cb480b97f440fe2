"""Log-probabilities of given tokens: the one implementation, for every loss and for scoring.

The logits of 8,192 tokens over 128,256 words are 4 GiB in float32, and their gradient as much
again, so neither ever exists: a scan walks over chunks of the vocabulary with the running maximum
and sum of exponentials of flash attention (arXiv 2205.14135), and the backward pass computes each
chunk again. Chunks are of the vocabulary and not of the tokens, so that the gradient of a chunk of
the head is complete in one float32 product: it is written once, and never summed over chunks of
tokens. It costs one product of the size of the head's more than keeping the logits would.

On a mesh this is the body of a `jax.shard_map(..., check_vma=False)`. With that setting, shard_map
divides the gradient of an output by the size of the axes along which the output is the same, and
sums the gradient of an input over the axes along which the input is the same. What is done where:

    forward   here       hidden gathered over `vocab_axis`, a chunk of the head over `gather_head`,
                         both in the dtype of `hidden`; maximum and sum combined over `vocab_axis`
    backward  here       both gathers again; the gradients of the outputs summed over `vocab_axis`
                         (which undoes the division); those of hidden reduce-scattered over
                         `vocab_axis`, of a chunk of the head over `gather_head`, in float32
              shard_map  the head's gradient summed over all axes along which the head is the same
                         (in the head's dtype), whether rows differ along them or not

Letters: B batch, T tokens, D model, V vocabulary, M = B * T, C words of a chunk.
"""

import functools

import jax
import jax.numpy as jnp


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
      vocab_chunk: at most so many words at once; the memory used is a few `[B * T, vocab_chunk]`.
      vocab_axis, gather_head: names of mesh axes.

    Returns:
      Log-probabilities and log-normalisers, float32 `[B, T]`, the same along `vocab_axis`. Both
      have gradients: `hidden`'s in its dtype, summed in float32; `head`'s in the dtype of `head`.
    """
    with jax.named_scope("token_log_probs"):
        return _token_log_probs(hidden, head, targets, vocab_chunk, vocab_axis, gather_head)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _token_log_probs(hidden, head, targets, vocab_chunk, vocab_axis, gather_head):
    tokens = _gather_tokens(hidden, vocab_axis)
    ids = targets.reshape(-1)
    num_chunks, _ = _chunks(head, vocab_chunk)

    def add_chunk(state, index):
        running_max, total, target_logit = state
        _, logits, is_target = _chunk(
            tokens, head, ids, index, vocab_chunk, vocab_axis, gather_head
        )
        new_max = jnp.maximum(running_max, jnp.max(logits, axis=1))
        exponentials = jnp.exp(logits - new_max[:, None])
        total = total * jnp.exp(running_max - new_max) + jnp.sum(exponentials, axis=1)
        found = jnp.max(jnp.where(is_target, logits, -jnp.inf), axis=1)
        return (new_max, total, jnp.maximum(target_logit, found)), None

    nothing = jnp.full(ids.shape, -jnp.inf, jnp.float32)
    state = (nothing, jnp.zeros_like(nothing), nothing)
    (largest, total, target_logit), _ = jax.lax.scan(add_chunk, state, jnp.arange(num_chunks))
    if vocab_axis is not None:
        own_largest, largest = largest, jax.lax.pmax(largest, vocab_axis)
        total = jax.lax.psum(total * jnp.exp(own_largest - largest), vocab_axis)
        target_logit = jax.lax.pmax(target_logit, vocab_axis)
    log_normalisers = largest + jnp.log(total)
    log_probs = target_logit - log_normalisers
    return log_probs.reshape(targets.shape), log_normalisers.reshape(targets.shape)


def _forward(hidden, head, targets, vocab_chunk, vocab_axis, gather_head):
    outputs = _token_log_probs(hidden, head, targets, vocab_chunk, vocab_axis, gather_head)
    return outputs, (hidden, head, targets, outputs[1])


def _backward(vocab_chunk, vocab_axis, gather_head, saved, gradients):
    hidden, head, targets, log_normalisers = saved
    tokens = _gather_tokens(hidden, vocab_axis)
    ids, log_normalisers = targets.reshape(-1), log_normalisers.reshape(-1)
    if vocab_axis is not None:
        gradients = jax.lax.psum(gradients, vocab_axis)
    of_log_prob, of_log_normaliser = (gradient.reshape(-1, 1) for gradient in gradients)
    num_chunks, size = _chunks(head, vocab_chunk)

    def add_chunk(state, index):
        hidden_gradient, head_gradient = state
        words, logits, is_target = _chunk(
            tokens, head, ids, index, vocab_chunk, vocab_axis, gather_head
        )
        # The log-probability is the target's logit less the log-normaliser, whose gradient by the
        # logits is the softmax.
        softmax = jnp.exp(logits - log_normalisers[:, None])
        gradient = (of_log_normaliser - of_log_prob) * softmax
        gradient = (gradient + jnp.where(is_target, of_log_prob, 0.0)).astype(tokens.dtype)
        hidden_gradient += jnp.einsum(
            "MC,CD->MD", gradient, words, preferred_element_type=jnp.float32
        )
        of_words = jnp.einsum("MC,MD->CD", gradient, tokens, preferred_element_type=jnp.float32)
        if gather_head:
            of_words = jax.lax.psum_scatter(of_words, gather_head, scatter_dimension=1, tiled=True)
        head_gradient = jax.lax.dynamic_update_slice_in_dim(
            head_gradient, of_words.astype(head.dtype), _start(head, index, size), axis=0
        )
        return (hidden_gradient, head_gradient), None

    state = (jnp.zeros(tokens.shape, jnp.float32), jnp.zeros_like(head))
    # The last chunk first: where it overlaps the one before, that one's rows are the whole ones.
    (hidden_gradient, head_gradient), _ = jax.lax.scan(
        add_chunk, state, jnp.arange(num_chunks), reverse=True
    )
    hidden_gradient = hidden_gradient.reshape(*targets.shape, -1)
    if vocab_axis is not None:
        hidden_gradient = jax.lax.psum_scatter(
            hidden_gradient, vocab_axis, scatter_dimension=1, tiled=True
        )
    return hidden_gradient.astype(hidden.dtype), head_gradient, None


_token_log_probs.defvjp(_forward, _backward)


def _gather_tokens(hidden, vocab_axis) -> jax.Array:
    """All tokens of the row `[M, D]`."""
    if vocab_axis is not None:
        hidden = jax.lax.all_gather(hidden, vocab_axis, axis=1, tiled=True)
    return hidden.reshape(-1, hidden.shape[-1])


def _chunks(head, vocab_chunk) -> tuple[int, int]:
    """Number and size of chunks: as few as can be, then as even as can be.

    128,256 words by at most 8,192 are 16 chunks of 8,016, and not 15 and a rest of 5,376.
    """
    num_words = head.shape[0]
    num_chunks = -(-num_words // vocab_chunk)
    return num_chunks, -(-num_words // num_chunks)


def _start(head, index, size) -> jax.Array:
    """Row of `head` at which a chunk begins; the last one may overlap the one before."""
    return jnp.minimum(index * size, head.shape[0] - size)


def _chunk(tokens, head, ids, index, vocab_chunk, vocab_axis, gather_head):
    """One chunk of the vocabulary.

    Returns:
      Its rows of the head `[C, D]` in the dtype of `tokens`; float32 logits `[M, C]`, -inf for
      words that the chunk before has as well; bool `[M, C]`, whether the word is the target.
    """
    _, size = _chunks(head, vocab_chunk)
    start = _start(head, index, size)
    words = _cast(jax.lax.dynamic_slice_in_dim(head, start, size, axis=0), tokens.dtype)
    if gather_head:
        words = jax.lax.all_gather(words, gather_head, axis=1, tiled=True)
    rows = start + jnp.arange(size, dtype=jnp.int32)
    is_new = rows >= index * size
    if vocab_axis is not None:
        rows = rows + jax.lax.axis_index(vocab_axis) * head.shape[0]
    logits = jnp.einsum("MD,CD->MC", tokens, words, preferred_element_type=jnp.float32)
    return words, jnp.where(is_new, logits, -jnp.inf), (rows == ids[:, None]) & is_new


def _cast(words, dtype) -> jax.Array:
    """`words` in `dtype`, cast here and nowhere else.

    Where a float32 array is only read as bfloat16, XLA for TPU moves the cast out of the loop and
    casts the whole head before it: a gigabyte. It does not look through the bits of an integer.
    """
    if words.dtype == dtype:
        return words
    bits = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{8 * words.dtype.itemsize}"))
    bits = jax.lax.optimization_barrier(bits)
    return jax.lax.bitcast_convert_type(bits, words.dtype).astype(dtype)
