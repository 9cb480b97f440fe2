"""A stage whose steps are all alike, as those of post-training are."""

from llama_jax.config import ModelConfig
from train.config import BatchStep, Source, StageConfig, StageLoss
from train.schedules import LearningRate


def steady_stage(
    name: str,
    *,
    num_steps: int,
    row_length: int,
    rows: int,
    learning_rate: LearningRate,
    mixture: tuple[Source, ...],
    loss: StageLoss,
    reference: str | None = None,
    reference_model: ModelConfig | None = None,
    micro_batches: int = 1,
) -> StageConfig:
    """The stage `name` of `num_steps` steps.

    Args:
      rows: of a step; each has whole examples, as many as fit.
      mixture: prepared folders of the kind that `loss` reads.
      reference: checkpoint of the model that `loss` compares with, if it has one; None is what the
        run begins with.
      reference_model: what that model is, if it is a teacher; None is the run's.
      micro_batches: into how many parts the rows of a step are split.
    """
    return StageConfig(
        name=name,
        num_tokens=num_steps * rows * row_length,
        row_length=row_length,
        mixture=mixture,
        batch=(BatchStep(0, rows, micro_batches),),
        learning_rate=learning_rate,
        loss=loss,
        reference=reference,
        reference_model=reference_model,
    )
