"""Direct preference optimisation on pairs of answers.

Published for Llama 3 (arXiv 2407.21783, section 4.1.4) are the learning rate 1e-5, beta 0.1, the
weight 0.2 of the likelihood of chosen answers, the masked formatting tokens (which the data has),
short contexts alone, and the mix of table 6. Batch, number of steps and schedule are not.
"""

from train.config import BatchStep, Source, StageConfig
from train.losses.dpo import Dpo
from train.schedules import LearningRate

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


def dpo_stage(
    *,
    num_steps: int,
    row_length: int,
    rows: int,
    learning_rate: LearningRate,
    mixture: tuple[Source, ...],
    loss: Dpo,
    reference: str | None = None,
    micro_batches: int = 1,
) -> StageConfig:
    """The stage `dpo`.

    Args:
      rows: of a step; each has whole pairs, as many as fit.
      mixture: folders that `llama-jax data preferences --for dpo` wrote.
      reference: checkpoint of the reference policy; None is what the run begins with.
    """
    return StageConfig(
        name="dpo",
        num_tokens=num_steps * rows * row_length,
        row_length=row_length,
        mixture=mixture,
        batch=(BatchStep(0, rows, micro_batches),),
        learning_rate=learning_rate,
        loss=loss,
        reference=reference,
    )
