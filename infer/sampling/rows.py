"""The parameters of a batch of rows as arrays, and which parts of sampling they need computed.

B rows, N entries of the bias table.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from infer.sampling.parameters import MAX_LOGIT_BIASES, SamplingParameters

NO_ID = -1


@dataclass(frozen=True)
class SamplingMode:
    """What a batch needs computed; static, so each combination is a program of its own.

    A row's tokens do not depend on it: what a row did not ask for changes nothing for that row.

    Attributes:
      random, top_k, top_p, min_p, bias: whether some row has it.
      penalties: whether some row has one; `choose` then wants `counts`.
      mask: whether some row may choose only certain ids; `choose` then wants `mask`.
      num_logprobs: None computes no log-probability; k computes that of the chosen id and of the k
        likeliest. `stack_sampling` leaves it None, since `SamplingParameters` do not say.
    """

    random: bool
    top_k: bool
    top_p: bool
    min_p: bool = False
    penalties: bool = False
    bias: bool = False
    mask: bool = False
    num_logprobs: int | None = None

    def covers(self, other: "SamplingMode") -> bool:
        """Whether a program of this mode serves a batch that needs `other`."""
        return (self | other) == self

    def __or__(self, other: "SamplingMode") -> "SamplingMode":
        """The least mode that covers both."""
        flags = {
            field.name: getattr(self, field.name) or getattr(other, field.name)
            for field in dataclasses.fields(self)
            if field.name != "num_logprobs"
        }
        counts = [mode.num_logprobs for mode in (self, other) if mode.num_logprobs is not None]
        return SamplingMode(**flags, num_logprobs=max(counts, default=None))


class RowSampling(NamedTuple):
    """`SamplingParameters` of every row, without `allowed_ids`, which are masks (see `masks.py`).

    Attributes:
      temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty: float32
        `[B]`.
      top_k: int32 `[B]`.
      seed: uint32 `[B]`.
      bias_ids: int32 `[B, N]`, -1 where a row has fewer; N is 0 or `MAX_LOGIT_BIASES`.
      bias_values: float32 `[B, N]`.
    """

    temperature: jax.Array
    top_p: jax.Array
    top_k: jax.Array
    seed: jax.Array
    min_p: jax.Array
    repetition_penalty: jax.Array
    presence_penalty: jax.Array
    frequency_penalty: jax.Array
    bias_ids: jax.Array
    bias_values: jax.Array


def stack_sampling(
    rows: Sequence[SamplingParameters], mode: SamplingMode | None = None
) -> tuple[RowSampling, SamplingMode]:
    """Arrays for `choose`, and the mode that covers every row.

    Args:
      mode: a mode that covers the rows, to stack them for a program of that mode; by default the
        least one. The width of the bias table depends on it.
    """
    needed = _least_mode(rows)
    mode = mode or needed
    assert mode.covers(needed), f"{mode} does not cover {needed}"
    dtypes = {"top_k": np.int32, "seed": np.uint32}
    columns = {
        name: np.array([getattr(row, name) for row in rows], dtypes.get(name, np.float32))
        for name in RowSampling._fields
        if not name.startswith("bias_")
    }
    width = MAX_LOGIT_BIASES if mode.bias else 0
    bias_ids = np.full((len(rows), width), NO_ID, np.int32)
    bias_values = np.zeros((len(rows), width), np.float32)
    for index, row in enumerate(rows):
        for column, (token, bias) in enumerate(row.logit_bias):
            bias_ids[index, column] = token
            bias_values[index, column] = bias
    return RowSampling(**columns, bias_ids=bias_ids, bias_values=bias_values), mode


def _least_mode(rows: Sequence[SamplingParameters]) -> SamplingMode:
    sampled = [row for row in rows if row.temperature > 0]
    return SamplingMode(
        random=bool(sampled),
        top_k=any(row.top_k > 0 for row in sampled),
        top_p=any(row.top_p < 1 for row in sampled),
        min_p=any(row.min_p > 0 for row in sampled),
        penalties=any(row.has_penalties for row in rows),
        bias=any(row.logit_bias for row in rows),
        mask=any(row.allowed_ids is not None for row in rows),
    )
