"""The learning rate as a function of the step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class WarmupCosine:
    """Linear from 0 to `peak`, then half a cosine down to `end` (arXiv 2407.21783, section 3.4.1).

    It counts the steps of the run, so that several stages can share one curve; after `decay_steps`
    it stays at `end`.

    Attributes:
      peak: the highest rate, reached after `warmup_steps` steps.
      end: the last rate.
      warmup_steps: steps from the beginning of the run to `peak`.
      decay_steps: steps from the beginning of the run, warm-up included, to `end`.
    """

    peak: float
    end: float
    warmup_steps: int
    decay_steps: int

    def rate(self, step: jax.Array, *, first_step: int, num_steps: int) -> jax.Array:
        """float32 rate of step `step`, counted from 0; the first step already moves."""
        step = jnp.asarray(step, jnp.float32)
        warmup = self.peak * (step + 1) / max(self.warmup_steps, 1)
        span = max(self.decay_steps - self.warmup_steps, 1)
        progress = jnp.clip((step - self.warmup_steps) / span, 0.0, 1.0)
        cosine = self.end + (self.peak - self.end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < self.warmup_steps, warmup, cosine)


@dataclass(frozen=True)
class Linear:
    """A straight line over the stage's own steps: `start` at its first, `end` after its last.

    With `end` 0 it is the annealing of Llama 3 (arXiv 2407.21783, section 3.4.3).

    Attributes:
      start: rate of the stage's first step.
      end: rate after its last one.
    """

    start: float
    end: float

    def rate(self, step: jax.Array, *, first_step: int, num_steps: int) -> jax.Array:
        """float32 rate of step `step` of the run; the stage began at `first_step`."""
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - first_step) / num_steps, 0.0, 1.0)
        return self.start + (self.end - self.start) * progress


LearningRate = WarmupCosine | Linear
