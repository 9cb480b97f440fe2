"""RoPE's two pairings, and the reordering of query and key rows between them.

Half-split (Hugging Face, ours) rotates dimension i of a head with i + H/2: two contiguous halves,
no lane shuffles on an accelerator. Interleaved (Meta, GGUF) rotates 2i with 2i + 1. Rows of the
projection weights are reordered accordingly; values stay the same bytes. For H = 4, half-split rows
are interleaved rows 0, 2, 1, 3.
"""

import numpy as np


def half_split_from_interleaved(weight: np.ndarray) -> np.ndarray:
    """`[heads, H, D]` in Meta's row order -> ours. A copy."""
    heads, head_dim, model_dim = weight.shape
    pairs = weight.reshape(heads, head_dim // 2, 2, model_dim)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def interleaved_from_half_split(weight: np.ndarray) -> np.ndarray:
    """`[heads, H, D]` in our row order -> Meta's. A copy."""
    heads, head_dim, model_dim = weight.shape
    halves = weight.reshape(heads, 2, head_dim // 2, model_dim)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
