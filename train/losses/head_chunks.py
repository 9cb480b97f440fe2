"""A walk over the words of a head, a chunk at a time: what every log-probability is computed with.

The logits of 8,192 tokens over 128,256 words are 4 GiB in float32, and their gradient as much
again, so neither ever exists: a scan walks over chunks of the vocabulary, and the backward pass
computes each chunk again. Chunks are of the vocabulary and not of the tokens, so that the gradient
of a chunk of the head is complete in one float32 product: it is written once, and never summed over
chunks of tokens. It costs one product of the size of the head's more than keeping the logits would.

On a mesh a walk is part of the body of a `jax.shard_map(..., check_vma=False)`. With that setting,
shard_map divides the gradient of an output by the size of the axes along which the output is the
same, and sums the gradient of an input over the axes along which the input is the same. What is
done where:

    forward   here       hidden gathered over `vocab_axis`, a chunk of the head over `gather_head`,
                         both in the dtype of `hidden`
              the walk   what it keeps of its chunks combined over `vocab_axis`
    backward  here       both gathers again; the gradients of hidden reduce-scattered over
                         `vocab_axis`, of a chunk of the head over `gather_head`, in float32
              the walk   the gradients of its outputs summed over `vocab_axis` (which undoes the
                         division)
              shard_map  the head's gradient summed over all axes along which the head is the same
                         (in the head's dtype), whether rows differ along them or not

Letters: B batch, T tokens, D model, V vocabulary, M = B * T, C words of a chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class HeadSplit(NamedTuple):
    """How a head is walked over. Hashable, as it is static in a jitted function.

    Attributes:
      vocab_chunk: at most so many words at once; the memory used is a few `[B * T, vocab_chunk]`.
      vocab_axis: the mesh axis along which V is split, and the tokens of `hidden` with it.
      gather_head: mesh axes along which D of the head is split.
    """

    vocab_chunk: int
    vocab_axis: str | None = None
    gather_head: tuple[str, ...] = ()


class Chunk(NamedTuple):
    """Some words of the vocabulary.

    Attributes:
      weights: `[C, D]`, their rows of the head in the dtype of the tokens.
      logits: float32 `[M, C]`; -inf for words that the chunk before has as well.
      ids: int32 `[C]`, ascending without gaps.
      is_new: bool `[C]`, whether the chunk before has not the word as well.
    """

    weights: jax.Array
    logits: jax.Array
    ids: jax.Array
    is_new: jax.Array


def gather_tokens(hidden: jax.Array, split: HeadSplit) -> jax.Array:
    """All tokens of the rows, `[M, D]`."""
    if split.vocab_axis is not None:
        hidden = jax.lax.all_gather(hidden, split.vocab_axis, axis=1, tiled=True)
    return hidden.reshape(-1, hidden.shape[-1])


def scan_chunks(
    add: Callable[..., Any],
    state: Any,
    models: tuple[tuple[jax.Array, jax.Array], ...],
    split: HeadSplit,
) -> Any:
    """`state` after `add(state, *chunks) -> state` of every chunk of this device's words.

    Args:
      models: of each model its tokens `[M, D]` and its head `[V, D]`; D may differ, V may not.
    """

    def step(state, index):
        return add(state, *(_chunk(*model, index, split) for model in models)), None

    num_chunks, _ = _chunks(models[0][1], split)
    return jax.lax.scan(step, state, jnp.arange(num_chunks))[0]


def scan_gradients(
    of_logits: Callable[..., jax.Array],
    hidden: jax.Array,
    head: jax.Array,
    split: HeadSplit,
    others: tuple[tuple[jax.Array, jax.Array], ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `hidden`, in its dtype and summed in float32, and of `head`, in its dtype.

    Args:
      of_logits: `(chunk, *other_chunks)` -> the gradient of its logits, float32 `[M, C]`; 0 for
        words that are not new.
      others: models whose chunks `of_logits` reads beside, as of `scan_chunks`.
    """
    tokens = gather_tokens(hidden, split)
    num_chunks, size = _chunks(head, split)

    def step(state, index):
        hidden_gradient, head_gradient = state
        chunk = _chunk(tokens, head, index, split)
        gradient = of_logits(chunk, *(_chunk(*other, index, split) for other in others))
        gradient = gradient.astype(tokens.dtype)
        hidden_gradient += jnp.einsum(
            "MC,CD->MD", gradient, chunk.weights, preferred_element_type=jnp.float32
        )
        of_words = jnp.einsum("MC,MD->CD", gradient, tokens, preferred_element_type=jnp.float32)
        if split.gather_head:
            of_words = jax.lax.psum_scatter(
                of_words, split.gather_head, scatter_dimension=1, tiled=True
            )
        head_gradient = jax.lax.dynamic_update_slice_in_dim(
            head_gradient, of_words.astype(head.dtype), _start(head, index, size), axis=0
        )
        return (hidden_gradient, head_gradient), None

    state = (jnp.zeros(tokens.shape, jnp.float32), jnp.zeros_like(head))
    # The last chunk first: where it overlaps the one before, that one's rows are the whole ones.
    (hidden_gradient, head_gradient), _ = jax.lax.scan(
        step, state, jnp.arange(num_chunks), reverse=True
    )
    hidden_gradient = hidden_gradient.reshape(hidden.shape[0], -1, hidden.shape[-1])
    if split.vocab_axis is not None:
        hidden_gradient = jax.lax.psum_scatter(
            hidden_gradient, split.vocab_axis, scatter_dimension=1, tiled=True
        )
    return hidden_gradient.astype(hidden.dtype), head_gradient


def sum_over_words(split: HeadSplit, largest: jax.Array, *totals: jax.Array) -> tuple:
    """The largest logits of all devices' words, and sums of this device's words that were taken
    relative to its own `largest` as sums of all words relative to that."""
    if split.vocab_axis is None:
        return largest, *totals
    own_largest, largest = largest, jax.lax.pmax(largest, split.vocab_axis)
    scale = jnp.exp(own_largest - largest)
    return largest, *(jax.lax.psum(total * scale, split.vocab_axis) for total in totals)


def _chunks(head, split) -> tuple[int, int]:
    """Number and size of chunks: as few as can be, then as even as can be.

    128,256 words by at most 8,192 are 16 chunks of 8,016, and not 15 and a rest of 5,376.
    """
    num_words = head.shape[0]
    num_chunks = -(-num_words // split.vocab_chunk)
    return num_chunks, -(-num_words // num_chunks)


def _start(head, index, size) -> jax.Array:
    """Row of `head` at which a chunk begins; the last one may overlap the one before."""
    return jnp.minimum(index * size, head.shape[0] - size)


def _chunk(tokens, head, index, split) -> Chunk:
    _, size = _chunks(head, split)
    start = _start(head, index, size)
    weights = _cast(jax.lax.dynamic_slice_in_dim(head, start, size, axis=0), tokens.dtype)
    if split.gather_head:
        weights = jax.lax.all_gather(weights, split.gather_head, axis=1, tiled=True)
    ids = start + jnp.arange(size, dtype=jnp.int32)
    is_new = ids >= index * size
    if split.vocab_axis is not None:
        ids = ids + jax.lax.axis_index(split.vocab_axis) * head.shape[0]
    logits = jnp.einsum("MD,CD->MC", tokens, weights, preferred_element_type=jnp.float32)
    return Chunk(weights, jnp.where(is_new, logits, -jnp.inf), ids, is_new)


def _cast(weights, dtype) -> jax.Array:
    """`weights` in `dtype`, cast here and nowhere else.

    Where a float32 array is only read as bfloat16, XLA for TPU moves the cast out of the loop and
    casts the whole head before it: a gigabyte. It does not look through the bits of an integer.
    """
    if weights.dtype == dtype:
        return weights
    bits = jax.lax.bitcast_convert_type(weights, jnp.dtype(f"uint{8 * weights.dtype.itemsize}"))
    bits = jax.lax.optimization_barrier(bits)
    return jax.lax.bitcast_convert_type(bits, weights.dtype).astype(dtype)
