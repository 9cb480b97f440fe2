"""The profiler window: a few steps of a run traced into RUN_DIR/profile.

The trace shows what the devices and the host did, under the names that the model gives its parts;
xprof or TensorBoard's profile plugin opens the folder, Perfetto the `.trace.json.gz` in it. Tracing
costs time and memory, so that a window is a handful of steps past the first ones.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from train.config import ProfileWindow

PROFILE_FOLDER = "profile"


class Profiler:
    """Traces a window of steps; with `window` None it does nothing. A context manager."""

    def __init__(self, run_folder: Path, window: ProfileWindow | None):
        """Traces go to `run_folder/profile`, from each process of a job under its host's name."""
        self._folder = Path(run_folder) / PROFILE_FOLDER
        steps = (window.first_step, window.num_steps) if window else (0, 0)
        self._steps = range(steps[0], sum(steps))
        self.is_tracing = False

    def step(self, step: int, *, results: Any = None) -> AbstractContextManager:
        """Call it before each step, around which the result goes: `with profiler.step(step): ...`.

        Args:
          step: the one about to run. A run that is resumed within the window traces what is left.
          results: of the step before; they are waited for before a trace begins or ends, as a step
            that was handed to the devices is not yet computed.
        """
        if (step in self._steps) is not self.is_tracing:
            jax.block_until_ready(results)
            self._stop() if self.is_tracing else self._start()
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def _start(self) -> None:
        jax.profiler.start_trace(str(self._folder))
        self.is_tracing = True

    def _stop(self) -> None:
        self.is_tracing = False
        jax.profiler.stop_trace()

    def close(self) -> None:
        """Ends a trace that the run's end, or an error, came upon."""
        if self.is_tracing:
            self._stop()

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
