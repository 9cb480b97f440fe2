"""The network: Flax Linen modules inside, pure functions outside."""

from llama_jax.kernels.operators import DECODE, PREFILL, REFERENCE, Operators
from llama_jax.model.decode import forward_cached, unstack_blocks
from llama_jax.model.forward import (
    Params,
    abstract_params,
    forward,
    init_params,
    logits,
    output_head,
    refuse_reward_model,
    rewards,
)
from llama_jax.model.forward_paged import forward_paged, init_page_pool
from llama_jax.model.kv_cache import KVCache, init_cache
from llama_jax.model.paged_cache import RowPages
from llama_jax.model.partition import logical_axes
from llama_jax.model.remat import REMAT_POLICIES

__all__ = [
    "DECODE",
    "PREFILL",
    "REFERENCE",
    "REMAT_POLICIES",
    "KVCache",
    "Operators",
    "Params",
    "RowPages",
    "abstract_params",
    "forward",
    "forward_cached",
    "forward_paged",
    "init_cache",
    "init_page_pool",
    "init_params",
    "logical_axes",
    "logits",
    "output_head",
    "refuse_reward_model",
    "rewards",
    "unstack_blocks",
]
