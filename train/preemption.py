"""Being told to go: a job scheduler sends SIGTERM, and some seconds later it kills; a user presses
Ctrl-C, and again if it takes too long.

One process notes the signal and finishes its step. Of several, perhaps only one is told, and all
must save the same step: JAX's preemption service passes the news on and agrees on a step that none
has passed yet (`multihost_utils.reached_preemption_sync_point`). It takes SIGTERM over when
`jax.distributed.initialize` is called, so no handler of ours may replace it then.
"""

import signal
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Context in which SIGTERM, and in a job of one process SIGINT, mean "save and end". The
    handlers found before (the front door's, which end the process at once) are in force again after
    it, and after the first SIGINT.

    Enter it on the main thread, after `jax.distributed.initialize` if that is called.

    Attributes:
      exit_code: what the process ends with after it was told: 143 or 130.
    """

    def __init__(self):
        self._told = False
        self._previous: dict[int, Any] = {}
        self.exit_code = 143

    def __enter__(self) -> "Preemption":
        if not jax.distributed.is_initialized():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        for number in list(self._previous):
            self._give_back(number)

    @property
    def told_alone(self) -> bool:
        """Whether a job of one process was told, for work that comes before the first step."""
        return self._told and not jax.distributed.is_initialized()

    def requested(self, step: int) -> bool:
        """Whether to save now and end; the same on all processes. To be asked once each step, with
        rising `step`, by all of them."""
        if jax.distributed.is_initialized() and not self._told:
            self._told = multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def _note(self, number: int, frame: object) -> None:
        self._told = True
        self.exit_code = 128 + number
        if number == signal.SIGINT:
            self._give_back(number)
            print("saving after this step; Ctrl-C again ends at once", file=sys.stderr)

    def _give_back(self, number: int) -> None:
        signal.signal(number, self._previous.pop(number))
