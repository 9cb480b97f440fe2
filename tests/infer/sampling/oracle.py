"""Adjusting and truncating logits, written out in numpy's float64 from the definitions."""

import numpy as np

from infer.sampling import SamplingParameters


def adjusted_by_numpy(logits, parameters: SamplingParameters, *, prompt=(), new=(), forbidden=()):
    """float64 `[V]` after bias, penalties and masks."""
    logits = np.array(logits, np.float64)
    for token, bias in parameters.logit_bias:
        logits[token] += bias
    for token in {*prompt, *new}:
        if logits[token] > 0:
            logits[token] /= parameters.repetition_penalty
        else:
            logits[token] *= parameters.repetition_penalty
    for token in set(new):
        logits[token] -= parameters.frequency_penalty * list(new).count(token)
        logits[token] -= parameters.presence_penalty
    if parameters.allowed_ids is not None:
        logits[[i for i in range(len(logits)) if i not in parameters.allowed_ids]] = -np.inf
    logits[list(forbidden)] = -np.inf
    return logits


def probabilities_by_numpy(logits: np.ndarray, parameters: SamplingParameters) -> np.ndarray:
    """float64 `[V]`: what a token of temperature over 0 is drawn from; by sorting."""
    scaled = np.asarray(logits, np.float64) / parameters.temperature
    kept = scaled > -np.inf
    if parameters.top_k:
        kept &= np.array([np.sum(scaled > value) < parameters.top_k for value in scaled])
    if parameters.top_p < 1:
        probabilities = _softmax(np.where(kept, scaled, -np.inf))
        before = np.array([probabilities[scaled > value].sum() for value in scaled])
        kept &= before <= parameters.top_p
    probabilities = _softmax(np.where(kept, scaled, -np.inf))
    probabilities[probabilities < parameters.min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


def _softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
