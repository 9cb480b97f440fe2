"""Per-token log-probabilities on a mesh: which part of the head and of the tokens a device has."""

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sharding.divisibility import check_divides
from sharding.mesh import CONTEXT, DATA, FSDP, TENSOR


def sharded_token_log_probs(
    token_log_probs: Callable[..., tuple[jax.Array, jax.Array]], mesh: Mesh, *, vocab_chunk: int
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """`(hidden [B, T, D], head [V, D], targets [B, T]) -> two float32 [B, T]`, over whole arrays.

    Rows are split over data and fsdp, and tokens over context. The words of the head are split over
    tensor, where hidden arrives with its tokens split further, as the residual stream is. The
    head's D is split over fsdp and gathered chunk by chunk.

    Args:
      token_log_probs: the function of one device, `train/losses/token_log_probs.py`.
      vocab_chunk: at most so many words at once, on each device.

    The result raises `InputError`, with the numbers, for arrays that the mesh does not divide.
    """
    rows = (DATA, FSDP)
    of_hidden, of_head = P(rows, (CONTEXT, TENSOR), None), P(TENSOR, FSDP)
    of_targets = P(rows, CONTEXT)
    local = functools.partial(
        token_log_probs, vocab_chunk=vocab_chunk, vocab_axis=TENSOR, gather_head=(FSDP,)
    )
    # The sums of the backward pass are written for shard_map's older rules, without check_vma.
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(of_hidden, of_head, of_targets),
        out_specs=(of_targets, of_targets),
        check_vma=False,
    )

    def checked(hidden: jax.Array, head: jax.Array, targets: jax.Array):
        (B, T, D), (V, _) = hidden.shape, head.shape
        check_divides(mesh, {"rows": B, "tokens of a row": T, "dims of the model": D}, of_hidden)
        check_divides(mesh, {"words of the vocabulary": V, "dims of the model": D}, of_head)
        return sharded(hidden, head, targets)

    return checked
