"""Supervised fine-tuning on dialogs: cross-entropy on what the assistant says, and nothing else.

Published for Llama 3 (arXiv 2407.21783, section 4.1.3) are the learning rate 1e-5, 8,500 to 9,000
steps for the largest models, the loss on answers alone, and the mix of its table 7. Batch, schedule
and weight decay are not.
"""

from train.config import BatchStep, Source, StageConfig
from train.losses.cross_entropy import CrossEntropy
from train.schedules import LearningRate

PEAK_RATE = 1e-5
# Table 7, without the 0.11 % of long dialogs, which would need rows of 128K.
LLAMA_3_SFT_MIX = {
    "general": 52.66,
    "reasoning_and_tools": 21.19,
    "code": 14.89,
    "exam_like": 8.14,
    "multilingual": 3.01,
}


def sft_stage(
    *,
    num_steps: int,
    row_length: int,
    rows: int,
    learning_rate: LearningRate,
    mixture: tuple[Source, ...],
    micro_batches: int = 1,
) -> StageConfig:
    """The stage `sft`.

    Args:
      rows: of a step; each has whole dialogs, one after another.
      mixture: folders that `llama-jax data dialogs` wrote.
    """
    return StageConfig(
        name="sft",
        num_tokens=num_steps * rows * row_length,
        row_length=row_length,
        mixture=mixture,
        batch=(BatchStep(0, rows, micro_batches),),
        learning_rate=learning_rate,
        loss=CrossEntropy(),
    )
