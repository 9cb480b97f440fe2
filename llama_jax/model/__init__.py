"""The network: Flax Linen modules inside, pure functions outside."""

from llama_jax.model.decode import forward_cached, unstack_blocks
from llama_jax.model.forward import Params, abstract_params, forward, init_params, logits
from llama_jax.model.kv_cache import KVCache, init_cache
from llama_jax.model.operators import DECODE, PREFILL, REFERENCE, Operators

__all__ = [
    "DECODE",
    "PREFILL",
    "REFERENCE",
    "KVCache",
    "Operators",
    "Params",
    "abstract_params",
    "forward",
    "forward_cached",
    "init_cache",
    "init_params",
    "logits",
    "unstack_blocks",
]
