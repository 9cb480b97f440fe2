"""A reward model: a pretrained policy with a new reward head, trained on ranked answers.

Published for Llama 3 (arXiv 2407.21783, section 4.1.2) are the loss without a margin, edited over
chosen over rejected answers, all answers to a prompt in one row in random order, and that pairs of
similar answers are left out. Learning rate, batch and number of steps are not; Llama 2 had one pass
over its data at 1e-5 for its smaller models and 5e-6 for 70B (arXiv 2307.09288, section 3.2.2).
"""

from typing import Any

from train.config import StageConfig
from train.losses.bradley_terry import BradleyTerry
from train.stages.steady_stage import steady_stage

PEAK_RATE = 1e-5


def reward_model_stage(**shape: Any) -> StageConfig:
    """The stage `reward_model`, on folders that `llama-jax data preferences --for reward` wrote.

    The run's model has a `reward_head`.

    Args:
      shape: of the stage, as `steady_stage` takes it.
    """
    return steady_stage("reward_model", loss=BradleyTerry(), **shape)
