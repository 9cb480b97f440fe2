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


def log_sum_exp(query, key, key_start, key_end, *, scale):
    """Of the scores of each row `[B, N, T]`; -inf where it sees nothing."""
    B, N, T, _ = query.shape
    K = key.shape[1]
    result = np.full((B, N, T), -np.inf)
    for b, n, t in np.ndindex(B, N, T):
        keys = key[b, n // (N // K), key_start[b, t] : key_end[b, t]].astype(np.float64)
        if len(keys):
            scores = scale * keys @ query[b, n, t].astype(np.float64)
            result[b, n, t] = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    return result


def gradients(query, key, value, key_start, key_end, of_output, of_lse, *, scale):
    """Of query, key and value, row by row: softmax's Jacobian is written out, diag(p) - p p^T."""
    B, N, T, _ = query.shape
    K = key.shape[1]
    of_query, of_key, of_value = (np.zeros(x.shape) for x in (query, key, value))
    for b, n, t in np.ndindex(B, N, T):
        k, visible = n // (N // K), slice(key_start[b, t], key_end[b, t])
        keys, values = (x[b, k, visible].astype(np.float64) for x in (key, value))
        if len(keys):
            row = query[b, n, t].astype(np.float64)
            scores = scale * keys @ row
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            jacobian = np.diag(weights) - np.outer(weights, weights)
            of_weights = values @ of_output[b, n, t]
            of_scores = jacobian @ of_weights + weights * of_lse[b, n, t]
            of_query[b, n, t] = scale * of_scores @ keys
            of_key[b, k, visible] += scale * np.outer(of_scores, row)
            of_value[b, k, visible] += np.outer(weights, of_output[b, n, t])
    return of_query, of_key, of_value
