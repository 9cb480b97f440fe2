"""Attention written the slow, obvious way: loops over rows, heads and queries in float64."""

import numpy as np


def attention(query, key, value, key_start, key_end, *, scale):
    B, T, N, H = query.shape
    K = key.shape[2]
    output = np.zeros((B, T, N, H))
    for b, t, n in np.ndindex(B, T, N):
        visible = slice(key_start[b, t], key_end[b, t])
        keys = key[b, visible, n // (N // K)].astype(np.float64)
        values = value[b, visible, n // (N // K)].astype(np.float64)
        if len(keys):
            scores = scale * keys @ query[b, t, n].astype(np.float64)
            weights = np.exp(scores - scores.max())
            output[b, t, n] = weights / weights.sum() @ values
    return output
