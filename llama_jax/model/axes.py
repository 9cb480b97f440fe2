"""Logical axis names of parameters and activations.

A mesh is somebody else's business: `sharding` maps these names to mesh axes, and without such a
mapping they mean nothing. Parameters and activations have names of their own where they are
partitioned differently (FSDP splits a parameter's `embed`, never an activation's).
"""

LAYERS = "layers"
VOCAB = "vocab"
EMBED = "embed"
HEADS = "heads"
KV_HEADS = "kv_heads"
HEAD_DIM = "head_dim"
FEED_FORWARD = "feed_forward"

BATCH = "batch"
SEQUENCE = "sequence"
# Between blocks, where no two tokens meet, tokens may be split further than inside them.
RESIDUAL_SEQUENCE = "residual_sequence"
ACTIVATION_EMBED = "activation_embed"
ACTIVATION_HEADS = "activation_heads"
ACTIVATION_KV_HEADS = "activation_kv_heads"
ACTIVATION_FEED_FORWARD = "activation_feed_forward"
