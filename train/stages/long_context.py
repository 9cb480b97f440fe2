"""Stretching the context step by step, each step a stage with its own lengths, RoPE and gate.

Llama 3 went from 8K to 128K in six stages over about 800B tokens, the next one begun when the model
had recovered on short texts and found needles at the new length (arXiv 2407.21783, section 3.4.2).
The lengths of the stages, their mixtures and what RoPE did in between are not published; what
stands here is ours, and each number is a field of the step:

* Lengths. Documents are sorted by their number of tokens into buckets, `to_4096` (up to 4,096),
  `to_8192` (over 4,096, up to 8,192) and so on; the last also holds what is longer. A stage of
  length T takes `longest_share` of its rows from documents of its own bucket, which nearly fill a
  row, and the rest evenly from the shorter ones, so that every distance keeps being trained. (60 %
  long data did best in arXiv 2410.02660.) Within each bucket the mix of kinds stays.
* RoPE. Up to 8,192 the plain frequencies of pretraining. From there Llama 3.1's own
  wavelength-banded scaling with factor T / 8,192, at most the 8 of the published model: so waves
  turn about as far over T as they did over 8,192, and the last stages train with exactly the
  published numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llama_jax.config import Llama3Scaling
from train.config import BatchStep, Gate, Source, StageConfig
from train.schedules import Linear

# What Llama 3.1 was published with (Meta's `apply_scaling`).
ORIGINAL_LENGTH = 8192
PUBLISHED_FACTOR = 8.0


@dataclass(frozen=True)
class LongContextStep:
    """One stretch of the context.

    Attributes:
      row_length: the new length.
      num_tokens: how long it trains.
      longest_share: of the rows, from documents of the longest bucket.
    """

    row_length: int
    num_tokens: int
    longest_share: float = 0.6


def long_context_stages(
    steps: tuple[LongContextStep, ...],
    *,
    tokens_per_step: int,
    first_rate: float,
    last_rate: float,
    mix: Mapping[str, float],
    data: str,
    gate: Gate,
) -> tuple[StageConfig, ...]:
    """One stage a step, named `context_` and its length.

    Args:
      steps: ascending by length.
      tokens_per_step: of an optimiser step, a multiple of every length.
      first_rate, last_rate: the learning rate falls along one line over all steps' tokens.
      mix: kind of data -> share, the same in each bucket of lengths.
      data: folder of prepared data: `data`/row length/kind_bucket.
      gate: the same after each step.
    """
    lengths = [step.row_length for step in steps]
    total = sum(step.num_tokens for step in steps)

    def rate_at(part: float) -> float:
        return first_rate * (1 - part) + last_rate * part

    stages, seen = [], 0
    for step in steps:
        until = [length for length in lengths if length <= step.row_length]
        start, seen = seen, seen + step.num_tokens
        stages.append(
            StageConfig(
                name=f"context_{step.row_length}",
                num_tokens=step.num_tokens,
                row_length=step.row_length,
                mixture=lengths_mixture(
                    mix,
                    length_shares(until, step.longest_share),
                    data=data,
                    row_length=step.row_length,
                ),
                batch=(BatchStep(0, tokens_per_step // step.row_length),),
                learning_rate=Linear(rate_at(start / total), rate_at(seen / total)),
                rope_scaling=scaling_for(step.row_length),
                gate=gate,
            )
        )
    return tuple(stages)


def length_shares(lengths: list[int], longest_share: float) -> dict[int, float]:
    """Bucket (its greatest number of tokens) -> share of the rows; the last of `lengths` is the
    longest. `[4096, 8192, 16384]` with 0.6 gives 0.2, 0.2, 0.6."""
    *shorter, longest = lengths
    if not shorter:
        return {longest: 1.0}
    return {
        **{length: (1 - longest_share) / len(shorter) for length in shorter},
        longest: longest_share,
    }


def lengths_mixture(
    mix: Mapping[str, float], shares: Mapping[int, float], *, data: str, row_length: int
) -> tuple[Source, ...]:
    """A source for each kind and bucket, weighted by the product of their shares."""
    return tuple(
        Source(
            name=f"{kind}_to_{length}",
            path=f"{data}/{row_length}/{kind}_to_{length}",
            weight=round(part * share, 9),  # as written: 0.034, not 0.034000000000000002
        )
        for kind, part in mix.items()
        for length, share in shares.items()
    )


def scaling_for(row_length: int) -> Llama3Scaling | None:
    """RoPE scaling of a stage: none up to 8,192, then the factor grows with the length up to 8."""
    if row_length <= ORIGINAL_LENGTH:
        return None
    return Llama3Scaling(
        factor=min(PUBLISHED_FACTOR, row_length / ORIGINAL_LENGTH),
        low_frequency_factor=1.0,
        high_frequency_factor=4.0,
        original_context_length=ORIGINAL_LENGTH,
    )
