"""The attention mask as one interval of keys per query.

Causal order, packed documents, padding and sliding windows all let query t see keys
`key_start[t] <= s < key_end[t]`. Two int32 arrays say so, computed once a step and shared by all
layers; a `[T, S]` mask never exists outside the reference implementation.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp


class MaskForm(enum.Enum):
    """What is known of the intervals while a program is traced.

    Kernels that are not ours (splash, cuDNN) take named forms and no intervals.

    CAUSAL: `key_start` is 0 and `key_end` is t + 1, with as many keys as queries.
    PACKED: `key_end` is t + 1 and `key_start` the first position of the document of t, with as many
      keys as queries: two tokens are of one document where `key_start` is equal.
    INTERVALS: anything.
    """

    CAUSAL = "causal"
    PACKED = "packed"
    INTERVALS = "intervals"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IntervalMask:
    """Keys that each query may see. An empty interval gives an attention output of zero.

    Attributes:
      key_start: int32 `[B, T]`, first visible key.
      key_end: int32 `[B, T]`, one past the last visible key.
      form: what the intervals are known to be; static.
    """

    key_start: jax.Array
    key_end: jax.Array
    form: MaskForm = dataclasses.field(default=MaskForm.INTERVALS, metadata={"static": True})


def causal_mask(batch_size: int, length: int) -> IntervalMask:
    """Each token sees itself and everything before it in its row."""
    index = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch_size, length))
    return IntervalMask(jnp.zeros_like(index), index + 1, MaskForm.CAUSAL)


def packed_mask(segment_ids: jax.Array) -> IntervalMask:
    """Causal within each document of a packed row.

    Args:
      segment_ids: int `[B, T]`; a document is a run of equal ids. For `[5, 5, 7, 7, 7]`, key_start
        is `[0, 0, 2, 2, 2]` and key_end `[1, 2, 3, 4, 5]`.
    """
    batch_size, length = segment_ids.shape
    causal = causal_mask(batch_size, length)
    index = causal.key_end - 1
    begins = jnp.concatenate(
        [jnp.ones((batch_size, 1), bool), segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1
    )
    key_start = jax.lax.cummax(jnp.where(begins, index, 0), axis=1)
    return IntervalMask(key_start, causal.key_end, MaskForm.PACKED)


def window_mask(mask: IntervalMask, window: int) -> IntervalMask:
    """`mask`, of which each query sees its last `window` keys at most."""
    key_start = jnp.maximum(mask.key_start, mask.key_end - window)
    return IntervalMask(key_start, mask.key_end)
