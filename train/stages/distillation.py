"""Distillation: a smaller model learns what a larger one says of each next token.

Nothing about it is published for Llama 3.1; Llama 3.2's 1B and 3B, which were made from 3.1 8B, had
the token probabilities of 8B and 70B as targets (Meta, "Llama 3.2: Revolutionizing edge AI and
vision with open, customizable models", 25 September 2024), without numbers.

Beside it stands distillation by answers: `llama-jax batch` or `ask` writes what a teacher says, and
`sft_stage` trains on it. That needs no common tokenizer.
"""

from typing import Any

from train.config import StageConfig
from train.losses.distillation import Distillation
from train.stages.steady_stage import steady_stage


def distillation_stage(*, loss: Distillation, **shape: Any) -> StageConfig:
    """The stage `distillation`, on folders that `llama-jax data prepare` or `data dialogs` wrote.

    Args:
      loss: where the teacher is, and what is minimised.
      shape: of the stage, as `steady_stage` takes it; `reference` and `reference_model` are the
        teacher.
    """
    return steady_stage("distillation", loss=loss, **shape)
