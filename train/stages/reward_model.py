"""A reward model: a pretrained policy with a new reward head, trained on ranked answers.

Published for Llama 3 (arXiv 2407.21783, section 4.1.2) are the loss without a margin, edited over
chosen over rejected answers, all answers to a prompt in one row in random order, and that pairs of
similar answers are left out. Learning rate, batch and number of steps are not; Llama 2 had one pass
over its data at 1e-5 for its smaller models and 5e-6 for 70B (arXiv 2307.09288, section 3.2.2).
"""

from train.config import BatchStep, Source, StageConfig
from train.losses.bradley_terry import BradleyTerry
from train.schedules import LearningRate

PEAK_RATE = 1e-5


def reward_model_stage(
    *,
    num_steps: int,
    row_length: int,
    rows: int,
    learning_rate: LearningRate,
    mixture: tuple[Source, ...],
    micro_batches: int = 1,
) -> StageConfig:
    """The stage `reward_model`; the run's model has a `reward_head`.

    Args:
      rows: of a step; each has whole groups, a prompt with all its answers.
      mixture: folders that `llama-jax data preferences --for reward` wrote.
    """
    return StageConfig(
        name="reward_model",
        num_tokens=num_steps * rows * row_length,
        row_length=row_length,
        mixture=mixture,
        batch=(BatchStep(0, rows, micro_batches),),
        learning_rate=learning_rate,
        loss=BradleyTerry(),
    )
