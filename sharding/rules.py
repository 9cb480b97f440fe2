"""The whole partition on one page: logical axis names -> mesh axes.

A parameter is split over `fsdp` along the residual stream's width and over `tensor` along heads,
feed-forward or vocabulary. A row of the batch belongs to one device of `data` x `fsdp`. Within a
block `tensor` splits heads and feed-forward; between blocks it splits the tokens, so that norms and
residual sums are not done twice (Megatron's sequence parallelism, arXiv 2205.05198).

Serving splits a weight over `tensor` and `context` and never gathers one: a step reads every weight
once, and has too few tokens to split those between blocks. Key and value heads are split over
`tensor` alone, so that there may be more devices than such heads: the 8 of 70B and 405B on 16 chips
are `tensor` 8 and `context` 2, where each key head, with its part of the cache, lies on two chips
and half of its query heads on each. `data` and `fsdp` hold rows, each with a copy of the model.
"""

from collections.abc import Mapping

from jax.sharding import PartitionSpec

from llama_jax.model import axes
from sharding.mesh import CONTEXT, DATA, FSDP, TENSOR

Rules = Mapping[str, tuple[str, ...]]

TRAINING: Rules = {
    axes.LAYERS: (),
    axes.VOCAB: (TENSOR,),
    axes.EMBED: (FSDP,),
    axes.HEADS: (TENSOR,),
    axes.KV_HEADS: (TENSOR,),
    axes.HEAD_DIM: (),
    axes.FEED_FORWARD: (TENSOR,),
    axes.BATCH: (DATA, FSDP),
    axes.SEQUENCE: (CONTEXT,),
    axes.RESIDUAL_SEQUENCE: (CONTEXT, TENSOR),
    axes.ACTIVATION_EMBED: (),
    axes.ACTIVATION_HEADS: (TENSOR,),
    axes.ACTIVATION_KV_HEADS: (TENSOR,),
    axes.ACTIVATION_FEED_FORWARD: (TENSOR,),
}
SERVING: Rules = {
    **TRAINING,
    axes.VOCAB: (TENSOR, CONTEXT),
    axes.HEADS: (TENSOR, CONTEXT),
    axes.FEED_FORWARD: (TENSOR, CONTEXT),
    axes.ACTIVATION_HEADS: (TENSOR, CONTEXT),
    axes.ACTIVATION_FEED_FORWARD: (TENSOR, CONTEXT),
    axes.EMBED: (),
    axes.SEQUENCE: (),
    axes.RESIDUAL_SEQUENCE: (),
}


def mesh_spec(names: tuple[str | None, ...], rules: Rules = TRAINING) -> PartitionSpec:
    """The mesh axes of an array whose dimensions have these logical `names`; None is not split.

    Raises `ValueError` for a name that `rules` lack and for a mesh axis that two dimensions would
    share: both are mistakes that a partitioner would pass over in silence.
    """
    if unknown := [name for name in names if name is not None and name not in rules]:
        raise ValueError(f"no rule for the logical axes {unknown}; there are {list(rules)}")
    parts = [() if name is None else rules[name] for name in names]
    used = [axis for part in parts for axis in part]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {names} use a mesh axis twice: {parts}")
    return PartitionSpec(*(part or None for part in parts))
