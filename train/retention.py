"""Which checkpoints stay: the latest, the best, and those that something is still to be made of."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llama_jax.errors import InputError
from train.config import CheckpointConfig


class Retention:
    """Orbax asks it after every save (its protocol is `PreservationPolicy`).

    Args:
      config: how many of the latest, and whose lowest loss keeps one more.

    Raises `InputError` if none of the latest is to stay.

    Attributes:
      pinned: steps that stay whatever comes after them.
    """

    def __init__(self, config: CheckpointConfig):
        if config.keep < 1:
            raise InputError(
                f"checkpoint: keep {config.keep} leaves none to go on from; give 1 or more"
            )
        self._config = config
        self._losses: dict[int, float] = {}
        self.pinned: Collection[int] = ()

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Notes the evaluation losses, by set, of the checkpoint of `step`."""
        loss = metrics.get(self._config.best_set, math.nan)
        if math.isfinite(loss):
            self._losses[step] = loss

    def best(self, steps: Collection[int]) -> int | None:
        """Which of `steps` has the lowest finite loss, the first of equals; None without one."""
        known = sorted(step for step in steps if step in self._losses)
        return min(known, key=self._losses.__getitem__, default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each checkpoint, in the order of their steps, whether it stays."""
        steps = [info.step for info in checkpoints]
        kept = {*steps[-self._config.keep :], *self.pinned, self.best(steps)}
        return [step in kept for step in steps]
