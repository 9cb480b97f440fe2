"""Pretraining with a batch that grows, written as Llama 3 writes it: tokens a step, from when on.

A stage trains on rows of one length, so the ramp becomes one stage for each row length, within
which the number of rows grows. All stages share one learning rate, which counts the steps of the
run.

Reference: arXiv 2407.21783, section 3.4.1.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from llama_jax.errors import InputError
from train.config import BatchStep, StageConfig
from train.schedules import LearningRate
from train.stages.mixtures import mixture_of


@dataclass(frozen=True)
class RampStep:
    """From `after_tokens` tokens of the whole pretraining on, a step has `tokens_per_step` tokens
    in rows of `row_length`."""

    after_tokens: int
    row_length: int
    tokens_per_step: int


def pretrain_stages(
    ramp: tuple[RampStep, ...],
    *,
    num_tokens: int,
    learning_rate: LearningRate,
    mix: Mapping[str, float],
    data: str,
    tokens_at_once: int | None = None,
) -> tuple[StageConfig, ...]:
    """The stages of a pretraining of `num_tokens` tokens, named `pretrain_` and the row length.

    Args:
      ramp: ascending, from 0; a row length that was left does not come back.
      mix: kind of data -> share.
      data: the folder of prepared data, see `mixtures.py`.
      tokens_at_once: the most that a micro-batch has, so that memory does not grow with the batch;
        None splits no step.

    Raises `InputError` for a ramp that cannot be kept.
    """
    starts = [step.after_tokens for step in ramp]
    if not ramp or starts[0] != 0 or sorted(set(starts)) != starts or starts[-1] >= num_tokens:
        raise InputError(f"batch ramp: must ascend from 0 and stay below {num_tokens}: {starts}")
    if uneven := [step for step in ramp if step.tokens_per_step % step.row_length]:
        raise InputError(f"batch ramp: {uneven[0]} is not a whole number of rows")
    groups = [list(steps) for _, steps in itertools.groupby(ramp, key=lambda s: s.row_length)]
    ends = [group[0].after_tokens for group in groups[1:]] + [num_tokens]
    if len({group[0].row_length for group in groups}) != len(groups):
        raise InputError("batch ramp: a row length comes back; give the ramp one run of each")
    stages = []
    for group, end in zip(groups, ends, strict=True):
        first, row_length = group[0].after_tokens, group[0].row_length
        stages.append(
            StageConfig(
                name=f"pretrain_{row_length}",
                num_tokens=end - first,
                row_length=row_length,
                mixture=mixture_of(mix, data=data, row_length=row_length),
                batch=tuple(
                    BatchStep(
                        step.after_tokens - first,
                        step.tokens_per_step // row_length,
                        -(-step.tokens_per_step // (tokens_at_once or step.tokens_per_step)),
                    )
                    for step in group
                ),
                learning_rate=learning_rate,
            )
        )
    return tuple(stages)
