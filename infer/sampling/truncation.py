"""Temperature, top-k, top-p and min-p, each row with its own numbers.

The order is transformers': divide by the temperature, keep the k most likely, keep the nucleus of
what is left (Holtzman et al., arXiv 1904.09751), then min-p (Nguyen et al., arXiv 2407.01082).
vLLM has min-p before top-k and top-p; the two differ only for a row with both top-p and min-p,
whose nucleus vLLM takes of the probabilities that min-p left.

Meta's nucleus rule: a token stays while the probability *before* it is at most `top_p`, so the most
likely one always stays. (transformers says "less than": the two differ only where a partial sum
equals `top_p` exactly.) Tokens of equal logit stay or go together, because no order among them is
meaningful.

Nothing is sorted. Both cuts are thresholds on the logit, found by bisection over the 2^32 float32
values: 32 reductions over the vocabulary instead of a sort (32 rows of 49,152 on two CPU cores: 38
ms for both, and 340 ms for a sort alone). Which cuts a batch needs is decided on the host, so that
greedy decoding pays for none. Probabilities are summed as integers, in units of 2^-30, so that the
order of a sum, which depends on the shape of the batch, decides nothing. (All of 128,256 tokens
under half a unit, which are left out, weigh 6e-5 together at most.) Min-p is a threshold that needs
no search: the ratio of two probabilities is the exponential of the difference of their logits.

B rows, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import lax

from infer.sampling.ordered_sum import sum_by_halves
from infer.sampling.rows import RowSampling, SamplingMode


def truncated_logits(logits: jax.Array, rows: RowSampling, *, mode: SamplingMode) -> jax.Array:
    """Logits after temperature, `-inf` where top-k, top-p or min-p cuts: float32 `[B, V]`.

    Their softmax is the distribution that `choose` draws from, for rows of temperature over 0. A
    row that comes in as `-inf` everywhere stays so.
    """
    temperature = jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    greatest = jnp.max(logits, axis=-1, keepdims=True)
    # The maximum goes first: a temperature of 1e-6 would overflow float32 otherwise.
    logits = (logits - jnp.where(greatest == -jnp.inf, 0.0, greatest)) / temperature
    if mode.top_k:
        limit = jnp.where(rows.top_k > 0, rows.top_k, logits.shape[-1])
        # Kept: tokens with fewer than k above them.
        logits = _cut(logits, weights=jnp.ones_like(logits, jnp.int32), most_above=limit - 1)
    if mode.top_p:
        powers = jnp.exp(logits)
        # The greatest logit is 0 and its power 1, unless the row has nothing left.
        shares = powers / jnp.maximum(sum_by_halves(powers), 1.0)[:, None]
        # Rounding may take their sum over 1: rows without a nucleus get no bound.
        no_limit = jnp.iinfo(jnp.int32).max
        limit = jnp.where(rows.top_p < 1, _fixed_point(rows.top_p), no_limit)
        logits = _cut(logits, weights=_fixed_point(shares), most_above=limit)
    if mode.min_p:
        # The likeliest has logit 0 by now.
        logits = jnp.where(logits >= jnp.log(rows.min_p)[:, None], logits, -jnp.inf)
    return logits


def _fixed_point(share: jax.Array) -> jax.Array:
    """int32 of a number in [0, 1]: 2^30 is 1."""
    return jnp.round(share * 2.0**30).astype(jnp.int32)


def _cut(logits: jax.Array, *, weights: jax.Array, most_above: jax.Array) -> jax.Array:
    """Keeps each entry whose betters weigh at most `most_above` int32 `[B]`; the others become
    `-inf`. Weights are int32 `[B, V]`, of a sum under 2^31.

    The weight above a threshold falls as the threshold rises, so the smallest threshold that obeys
    the bound is found by bisection over the integers that order float32 values.
    """
    bits = lax.bitcast_convert_type(logits, jnp.int32)
    order = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)

    def halve(_, bounds):
        low, high = bounds
        # The floor of the mean without overflow.
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        above = jnp.sum(jnp.where(order > middle[:, None], weights, 0), axis=-1)
        obeys = above <= most_above
        return jnp.where(obeys, low, middle + 1), jnp.where(obeys, middle, high)

    ends = jnp.iinfo(jnp.int32)
    low = jnp.full(logits.shape[:1], ends.min, jnp.int32)
    high = jnp.full(logits.shape[:1], ends.max, jnp.int32)
    _, threshold = lax.fori_loop(0, 32, halve, (low, high))
    return jnp.where(order >= threshold[:, None], logits, -jnp.inf)
