"""Which checkpoints of a stage are averaged at its end."""

from train.config import StageConfig


def average_steps(stage: StageConfig, num_steps: int) -> tuple[int, ...]:
    """Steps of the stage, spread evenly, the last one among them; none if nothing is averaged.

    With 4 of 100 steps: 25, 50, 75, 100.
    """
    count = min(stage.average_last, num_steps)
    return tuple(num_steps * part // count for part in range(1, count + 1))
