"""Attention written the slow, obvious way: loops over rows, heads and queries in float64."""

import numpy as np


def attention(query, key, value, key_start, key_end, *, scale):
    B, N, T, H = query.shape
    K = key.shape[1]
    output = np.zeros((B, N, T, H))
    for b, n, t in np.ndindex(B, N, T):
        visible = slice(key_start[b, t], key_end[b, t])
        keys = key[b, n // (N // K), visible].astype(np.float64)
        values = value[b, n // (N // K), visible].astype(np.float64)
        if len(keys):
            scores = scale * keys @ query[b, n, t].astype(np.float64)
            weights = np.exp(scores - scores.max())
            output[b, n, t] = weights / weights.sum() @ values
    return output
