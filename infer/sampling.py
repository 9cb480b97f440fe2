"""Choosing the next token: greedy, temperature, top-k and top-p, each row with its own numbers.

The order is the usual one: divide by the temperature, keep the k most likely, then keep the nucleus
of what is left (Holtzman et al., arXiv 1904.09751). Meta's nucleus rule: a token stays while the
probability *before* it is at most `top_p`, so the most likely one always stays. (transformers says
"less than": the two differ only where a partial sum equals `top_p` exactly.) Tokens of equal logit
stay or go together, because no order among them is meaningful.

Nothing is sorted. Both cuts are thresholds on the logit, found by bisection over the 2^32 float32
values: 32 reductions over the vocabulary instead of a sort (32 rows of 49,152 on two CPU cores: 26
ms, and 340 ms for the sort alone). Which cuts a batch needs is decided on the host, so that greedy
decoding pays for none.

Randomness is a counter: the noise of a row depends on its seed and on the position it fills, and on
nothing else. The same row draws the same numbers in any batch, after any restart.

B rows, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from llama_jax.errors import InputError


@dataclass(frozen=True)
class SamplingParameters:
    """How one row chooses its tokens.

    Attributes:
      temperature: divides the logits; 0 means the most likely token, always.
      top_p: the nucleus, in (0, 1]; 1 keeps everything.
      top_k: how many tokens to keep; 0 keeps everything.
      seed: 0 <= seed < 2^32.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self):
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be over 0 and at most 1, not {self.top_p}")
        if not 0 <= self.top_k < 2**31 or self.top_k != int(self.top_k):
            raise InputError(f"top_k must be a whole number, 0 for no limit, not {self.top_k}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be from 0 to 2^32 - 1, not {self.seed}")

    def __str__(self) -> str:
        if self.temperature == 0:
            return "greedy"
        return f"temperature {self.temperature}, top_p {self.top_p}, top_k {self.top_k}"


GREEDY = SamplingParameters(temperature=0.0)


def override_sampling(
    defaults: SamplingParameters,
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    seed: int,
) -> SamplingParameters:
    """A checkpoint's defaults with what the user asked for instead; None is not asked for."""
    asked = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    asked = {name: value for name, value in asked.items() if value is not None}
    parameters = dataclasses.replace(defaults, **asked, seed=seed)
    if parameters.temperature == 0 and asked.keys() & {"top_p", "top_k"}:
        raise InputError("top_p and top_k do nothing at temperature 0: add a temperature")
    return parameters


@dataclass(frozen=True)
class SamplingMode:
    """What a batch needs computed; static, so each combination is a program of its own.

    A row's tokens do not depend on it: what a row did not ask for changes nothing for that row.
    """

    random: bool
    top_k: bool
    top_p: bool


class RowSampling(NamedTuple):
    """`SamplingParameters` of every row: float32, float32, int32 and uint32 arrays `[B]`."""

    temperature: jax.Array
    top_p: jax.Array
    top_k: jax.Array
    seed: jax.Array


def stack_sampling(rows: Sequence[SamplingParameters]) -> tuple[RowSampling, SamplingMode]:
    """Arrays for `sample`, and the mode that covers every row."""
    sampled = [row for row in rows if row.temperature > 0]
    mode = SamplingMode(
        random=bool(sampled),
        top_k=any(row.top_k > 0 for row in sampled),
        top_p=any(row.top_p < 1 for row in sampled),
    )
    dtypes = {"temperature": np.float32, "top_p": np.float32, "top_k": np.int32, "seed": np.uint32}
    columns = {
        field.name: np.array([getattr(row, field.name) for row in rows], dtypes[field.name])
        for field in dataclasses.fields(SamplingParameters)
    }
    return RowSampling(**columns), mode


@partial(jax.jit, static_argnames="mode")
def sample(
    logits: jax.Array, rows: RowSampling, positions: jax.Array, *, mode: SamplingMode
) -> jax.Array:
    """Next token of every row.

    Args:
      logits: float32 `[B, V]`; a row whose maximum is not finite gives a meaningless id.
      rows: each row's parameters, see `stack_sampling`.
      positions: int32 `[B]`, the position in its own sequence that the new token will have.
      mode: which parts to compute, see `stack_sampling`.

    Returns:
      int32 `[B]`.
    """
    greedy = _argmax(logits)
    if not mode.random:
        return greedy
    kept = truncated_logits(logits, rows, mode=mode)
    noise = jax.vmap(partial(_gumbel_row, size=logits.shape[-1]))(rows.seed, positions)
    # Gumbel's trick: the argmax of logits plus Gumbel noise is a draw from their softmax.
    drawn = _argmax(kept + noise)
    return jnp.where(rows.temperature > 0, drawn, greedy)


def truncated_logits(logits: jax.Array, rows: RowSampling, *, mode: SamplingMode) -> jax.Array:
    """Logits after temperature, `-inf` where top-k or top-p cuts: float32 `[B, V]`.

    Their softmax is the distribution that `sample` draws from, for rows of temperature over 0.
    """
    temperature = jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    # The maximum goes first: a temperature of 1e-6 would overflow float32 otherwise.
    logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature
    if mode.top_k:
        limit = jnp.where(rows.top_k > 0, rows.top_k, logits.shape[-1]).astype(jnp.float32)
        # Kept: tokens with fewer than k above them.
        logits = _cut(logits, weights=jnp.ones_like(logits), most_above=limit - 1)
    if mode.top_p:
        # A sum over a long tail may exceed 1 by rounding: rows without a nucleus get no bound.
        limit = jnp.where(rows.top_p < 1, rows.top_p, jnp.inf)
        logits = _cut(logits, weights=jax.nn.softmax(logits, axis=-1), most_above=limit)
    return logits


def _argmax(scores: jax.Array) -> jax.Array:
    """Index of the first maximum of each row, int32 `[B]`: two plain reductions, which XLA's CPU
    backend vectorises; `jnp.argmax` takes five times as long there."""
    is_maximum = scores == jnp.max(scores, axis=-1, keepdims=True)
    index = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(is_maximum, index, scores.shape[-1]), axis=-1)


def _cut(logits: jax.Array, *, weights: jax.Array, most_above: jax.Array) -> jax.Array:
    """Keeps each entry whose betters weigh at most `most_above` `[B]`; the others become `-inf`.

    The weight above a threshold falls as the threshold rises, so the smallest threshold that obeys
    the bound is found by bisection over the integers that order float32 values.
    """
    bits = lax.bitcast_convert_type(logits, jnp.int32)
    order = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)

    def halve(_, bounds):
        low, high = bounds
        # The floor of the mean without overflow.
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        above = jnp.sum(jnp.where(order > middle[:, None], weights, 0.0), axis=-1)
        obeys = above <= most_above
        return jnp.where(obeys, low, middle + 1), jnp.where(obeys, middle, high)

    ends = jnp.iinfo(jnp.int32)
    low = jnp.full(logits.shape[:1], ends.min, jnp.int32)
    high = jnp.full(logits.shape[:1], ends.max, jnp.int32)
    _, threshold = lax.fori_loop(0, 32, halve, (low, high))
    return jnp.where(order >= threshold[:, None], logits, -jnp.inf)


def _gumbel_row(seed: jax.Array, position: jax.Array, *, size: int) -> jax.Array:
    """Gumbel noise `[size]` for one row at one position."""
    return jax.random.gumbel(jax.random.fold_in(jax.random.key(seed), position), (size,))
