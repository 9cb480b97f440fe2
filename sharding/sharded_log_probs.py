"""Per-token log-probabilities on a mesh: which part of a head and of the tokens a device has."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sharding.divisibility import check_divides
from sharding.mesh import CONTEXT, DATA, FSDP, TENSOR


def sharded_log_probs(
    of_device: Callable[..., Any],
    mesh: Mesh,
    *,
    vocab_chunk: int,
    num_models: int = 1,
    **options: Any,
) -> Callable[..., Any]:
    """`of_device` over whole arrays: `(hidden [B, T, D], head [V, D], ..., [B, T, ...], ...)`.

    Rows are split over data and fsdp, and tokens over context. The words of a head are split over
    tensor, where hidden arrives with its tokens split further, as the residual stream is. The
    head's D is split over fsdp and gathered chunk by chunk.

    Args:
      of_device: the function of one device, such as `train/losses/token_log_probs.py`. Its first
        arguments are hidden and head of each model, then come arrays of the tokens; arrays of the
        tokens is what it returns.
      vocab_chunk: at most so many words at once, on each device.
      num_models: how many models' hidden and head it takes.
      options: of `of_device`, the same on every device.

    The result raises `InputError`, with the numbers, for arrays that the mesh does not divide.
    """
    rows = (DATA, FSDP)
    of_hidden, of_head = P(rows, (CONTEXT, TENSOR), None), P(TENSOR, FSDP)
    of_tokens = P(rows, CONTEXT)
    local = functools.partial(
        of_device, vocab_chunk=vocab_chunk, vocab_axis=TENSOR, gather_head=(FSDP,), **options
    )

    def checked(*arrays: jax.Array) -> Any:
        models, others = arrays[: 2 * num_models], arrays[2 * num_models :]
        for hidden, head in zip(models[::2], models[1::2], strict=True):
            (B, T, D), (V, _) = hidden.shape, head.shape
            sizes = {"rows": B, "tokens of a row": T, "dims of the model": D}
            check_divides(mesh, sizes, of_hidden)
            check_divides(mesh, {"words of the vocabulary": V, "dims of the model": D}, of_head)
        # The sums of the backward pass are written for shard_map's older rules, without check_vma.
        sharded = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(of_hidden, of_head) * num_models + (of_tokens,) * len(others),
            out_specs=of_tokens,
            check_vma=False,
        )
        return sharded(*arrays)

    return checked
