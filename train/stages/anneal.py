"""Annealing: the learning rate goes to 0 on better data, and checkpoints are averaged.

Llama 3 does so over its last 40M tokens, at the full 128K context, with data of high quality
up-weighted, and publishes the average of the annealing's checkpoints (arXiv 2407.21783, section
3.4.3). Which data, and by how much, is not published.
"""

from collections.abc import Mapping

from llama_jax.config import RopeScaling
from train.config import BatchStep, StageConfig
from train.schedules import Linear
from train.stages.mixtures import mixture_of


def anneal_stage(
    *,
    num_tokens: int,
    row_length: int,
    rows: int,
    start_rate: float,
    mix: Mapping[str, float],
    data: str,
    average_last: int,
    rope_scaling: RopeScaling | None = None,
) -> StageConfig:
    """The stage `anneal`.

    Args:
      rows: of a step. The steps are few: 40M tokens are 305 rows of 128K.
      start_rate: where the stage before ended.
      mix: kind of data -> share.
      data: folder of prepared data, see `mixtures.py`.
      average_last: how many checkpoints, evenly spread, are averaged; at most one a step.
    """
    return StageConfig(
        name="anneal",
        num_tokens=num_tokens,
        row_length=row_length,
        mixture=mixture_of(mix, data=data, row_length=row_length),
        batch=(BatchStep(0, rows),),
        learning_rate=Linear(start_rate, 0.0),
        rope_scaling=rope_scaling,
        average_last=average_last,
    )


def upweighted(
    mix: Mapping[str, float], better: Mapping[str, float], share: float
) -> dict[str, float]:
    """`mix` for 1 - `share` of the rows and `better` for the rest; a kind in both gets both."""
    scaled = {kind: part * (1 - share) for kind, part in mix.items()}
    for kind, part in better.items():
        scaled[kind] = scaled.get(kind, 0.0) + part * share
    return {kind: round(part, 9) for kind, part in scaled.items()}  # 0.175, not 0.17499999999999998
