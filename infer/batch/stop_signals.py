"""SIGTERM and Ctrl-C while rows are answered: end after the step in hand, whose rows are kept.

Nothing would be lost otherwise either, but the tokens of rows that are half answered would be, and
whoever is ended in the middle of a step has none of it. Of several processes of one mesh perhaps
only one is told, and all must end after the same step: JAX's preemption service, which takes
SIGTERM over there, agrees on one.
"""

import signal
import sys
from typing import Any

import jax


class StopSignals:
    """A context in which both signals are noted. After the first the handlers found before are in
    force again (the front door's, which end the process at once). Enter it on the main thread."""

    def __init__(self):
        self._told = False
        self._previous: dict[int, Any] = {}
        self.exit_code = 143

    def __enter__(self) -> "StopSignals":
        if not jax.distributed.is_initialized():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._give_back()

    def requested(self, step: int) -> bool:
        """Whether to end; the same on all processes of the mesh, which all ask at every step."""
        if jax.distributed.is_initialized() and not self._told:
            from jax.experimental import multihost_utils

            self._told = multihost_utils.reached_preemption_sync_point(step)
        return self._told

    def _note(self, number: int, frame: object) -> None:
        self._told = True
        self.exit_code = 128 + number
        self._give_back()
        if number == signal.SIGINT:
            print("ending after this step; Ctrl-C again ends at once", file=sys.stderr)

    def _give_back(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
