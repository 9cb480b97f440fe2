"""Supervised fine-tuning on dialogs: cross-entropy on what the assistant says, and nothing else.

Published for Llama 3 (arXiv 2407.21783, section 4.1.3) are the learning rate 1e-5, 8,500 to 9,000
steps for the largest models, the loss on answers alone, and the mix of its table 7. Batch, schedule
and weight decay are not.
"""

from typing import Any

from train.config import StageConfig
from train.losses.cross_entropy import CrossEntropy
from train.stages.steady_stage import steady_stage

PEAK_RATE = 1e-5
# Table 7, without the 0.11 % of long dialogs, which would need rows of 128K.
LLAMA_3_SFT_MIX = {
    "general": 52.66,
    "reasoning_and_tools": 21.19,
    "code": 14.89,
    "exam_like": 8.14,
    "multilingual": 3.01,
}


def sft_stage(**shape: Any) -> StageConfig:
    """The stage `sft`, on folders that `llama-jax data dialogs` wrote.

    Args:
      shape: of the stage, as `steady_stage` takes it.
    """
    return steady_stage("sft", loss=CrossEntropy(), **shape)
