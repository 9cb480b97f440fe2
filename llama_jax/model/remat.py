"""What the backward pass keeps of a block's forward pass, and what it computes again.

Every policy keeps a block's input. The names are those that `name_value` gives inside the block;
the bytes are of one layer and token, with activations of two bytes, before sharding:

    none         everything: the most memory, nothing computed twice
    products     all results of matrix products and of attention:  2 (2 D + 2 N H + 2 K H + 2 F)
    projections  query, key, value and the result of attention:    2 (D + 2 N H + 2 K H)
    attention    the result of attention:                          2 (D + N H)
    full         nothing else:                                     2 D

Attention's result comes with its log-sum-exp, 4 N bytes more, so that its backward pass does not
begin by running the forward one again (`products` and the two after it save that quarter of
attention's work).
"""

import jax
from jax.ad_checkpoint import checkpoint_name

from llama_jax.config import ModelConfig
from llama_jax.kernels.attention.saved import ATTENTION

QUERY, KEY, VALUE = "query", "key", "value"
ATTENTION_PROJECTION = "attention_projection"
GATE, UP = "gate", "up"

_PROJECTIONS = (QUERY, KEY, VALUE, ATTENTION)
_SAVED_NAMES: dict[str, tuple[str, ...]] = {
    "full": (),
    "attention": (ATTENTION,),
    "projections": _PROJECTIONS,
    "products": (*_PROJECTIONS, ATTENTION_PROJECTION, GATE, UP),
}

REMAT_POLICIES = ("none", *_SAVED_NAMES)


def name_value(x: jax.Array, name: str) -> jax.Array:
    """`x`, known to the policies by `name`."""
    return checkpoint_name(x, name)


def checkpoint_policy(name: str):
    """The policy `name`, not `none`, for `jax.checkpoint`."""
    return jax.checkpoint_policies.save_only_these_names(*_SAVED_NAMES[name])


def kept_bytes_per_token(config: ModelConfig, name: str, itemsize: int) -> int | None:
    """What the policy `name` keeps of each layer for each token, before sharding, with activations
    of `itemsize` bytes; None of `none`, which no formula here covers."""
    if name == "none":
        return None
    c = config
    query, key_value = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    sizes = {
        QUERY: query,
        KEY: key_value,
        VALUE: key_value,
        ATTENTION: query,
        ATTENTION_PROJECTION: c.model_dim,
        GATE: c.feed_forward_dim,
        UP: c.feed_forward_dim,
    }
    names = _SAVED_NAMES[name]
    log_sums = 4 * c.num_heads if ATTENTION in names else 0
    return itemsize * (c.model_dim + sum(sizes[one] for one in names)) + log_sums
