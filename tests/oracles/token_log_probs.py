"""Log-probabilities of tokens written the dense, obvious way, with gradients by hand; float64."""

import numpy as np


def token_log_probs(hidden, head, targets):
    """Log-probabilities `[B, T]`, log-normalisers `[B, T]` and the softmax `[B, T, V]`."""
    logits = np.float64(hidden) @ np.float64(head).T
    largest = logits.max(-1, keepdims=True)
    total = np.exp(logits - largest).sum(-1, keepdims=True)
    log_normalisers = largest + np.log(total)
    log_probs = np.take_along_axis(logits, targets[..., None], -1) - log_normalisers
    return log_probs[..., 0], log_normalisers[..., 0], np.exp(logits - log_normalisers)


def logits_gradient(hidden, head, targets, of_log_probs, of_log_normalisers):
    """`[B, T, V]`, from the gradients `[B, T]` of the two outputs."""
    softmax = token_log_probs(hidden, head, targets)[2]
    gradient = (of_log_normalisers - of_log_probs)[..., None] * softmax
    for b, t in np.ndindex(targets.shape):
        gradient[b, t, targets[b, t]] += of_log_probs[b, t]
    return gradient


def gradients(hidden, head, targets, of_log_probs, of_log_normalisers):
    """Those of `hidden` `[B, T, D]` and of `head` `[V, D]`."""
    gradient = logits_gradient(hidden, head, targets, of_log_probs, of_log_normalisers)
    of_head = np.einsum("btv,btd->vd", gradient, np.float64(hidden))
    return gradient @ np.float64(head), of_head
