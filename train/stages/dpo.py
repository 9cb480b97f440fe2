"""Direct preference optimisation on pairs of answers.

Published for Llama 3 (arXiv 2407.21783, section 4.1.4) are the learning rate 1e-5, beta 0.1, the
weight 0.2 of the likelihood of chosen answers, the masked formatting tokens (which the data has),
short contexts alone, and the mix of table 6. Batch, number of steps and schedule are not.
"""

from typing import Any

from train.config import StageConfig
from train.losses.dpo import Dpo
from train.stages.steady_stage import steady_stage

PEAK_RATE = 1e-5
LLAMA_3_DPO = Dpo(beta=0.1, nll_coefficient=0.2)
# What the project's first description says of DPO: no reference policy, and nothing added.
CARD_DPO = Dpo(beta=0.1, reference="none", nll_coefficient=0.0)
# Table 6.
LLAMA_3_PREFERENCE_MIX = {
    "general": 81.99,
    "code": 6.93,
    "reasoning_and_tools": 5.89,
    "multilingual": 5.19,
}


def dpo_stage(*, loss: Dpo, **shape: Any) -> StageConfig:
    """The stage `dpo`, on folders that `llama-jax data preferences --for dpo` wrote.

    Args:
      loss: `LLAMA_3_DPO`, or another.
      shape: of the stage, as `steady_stage` takes it.
    """
    return steady_stage("dpo", loss=loss, **shape)
